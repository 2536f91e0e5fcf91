"""What work takes before it runs: memory of a GPU or of this machine, by running it on nothing."""
