"""A stage kind for llmpipe that counts words."""
