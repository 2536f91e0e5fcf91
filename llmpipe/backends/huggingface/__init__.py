"""Models in Hugging Face folders: loading, inference, merging, and reading a GGUF as one."""
