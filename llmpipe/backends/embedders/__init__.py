"""Embedding models, one module per engine."""
