"""Verify that llama.cpp reads chats and text from a GGUF exactly as the Hugging Face model does."""
