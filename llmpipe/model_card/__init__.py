"""A model card in Markdown, made from what the store and the spec say and nothing else."""
