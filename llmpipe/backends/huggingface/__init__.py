"""Models in Hugging Face folders: loading, inference, merging, and importing a GGUF."""
