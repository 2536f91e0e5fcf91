"""One YAML file from raw data to a fine-tuned model that is proven to be the one served."""

__version__ = "0.1.0"
