"""Axolotl, the trainer: compile its configuration, check it, and run it."""
