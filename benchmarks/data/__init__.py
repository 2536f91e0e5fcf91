"""How many rows a CPU second `format` reads, filters, splits and writes, beside `datasets`."""
