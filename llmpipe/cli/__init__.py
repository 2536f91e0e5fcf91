"""The command line: one short module per command, imported only when that command is used."""
