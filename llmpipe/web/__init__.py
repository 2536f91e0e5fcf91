"""The HTTP services: of a rag stage with its page, and of a served model."""
