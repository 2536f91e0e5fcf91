"""The HTTP service of a rag stage and its page."""
