"""What runs stages: `base` is the protocol, `local` runs them on this machine."""
