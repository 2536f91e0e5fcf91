"""From a spec's references to a typed graph of stages, derived stages included."""
