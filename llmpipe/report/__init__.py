"""A run as one HTML page, made only from the run's records."""
