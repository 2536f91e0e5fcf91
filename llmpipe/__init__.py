"""A pipeline engine: one YAML file from raw data to a fine-tuned model or a retrieval service."""

__version__ = "0.1.0"
