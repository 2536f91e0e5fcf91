"""Documents as text with structure: what `ingest` makes of files and what `chunk` cuts up."""
