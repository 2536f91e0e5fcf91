"""Axolotl, which trains: its configuration, what it takes, and a watched run of it."""
