"""llama.cpp: serve GGUF files, read them and convert models to them."""
