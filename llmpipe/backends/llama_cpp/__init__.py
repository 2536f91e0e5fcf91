"""llama.cpp, which serves GGUF files and writes them."""
