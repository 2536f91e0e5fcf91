"""Documents as structured text: `ingest` converts files to them, and `chunk` splits them."""
