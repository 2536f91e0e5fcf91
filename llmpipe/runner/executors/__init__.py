"""The executors: `base` is the protocol, `local` runs stages on this machine."""
