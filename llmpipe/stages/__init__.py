"""The stage kinds, one file each. `llmpipe.registry` finds them by name."""
