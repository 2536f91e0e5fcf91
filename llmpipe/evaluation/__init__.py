"""Score answers and rankings, and compute confidence intervals: pure functions."""
