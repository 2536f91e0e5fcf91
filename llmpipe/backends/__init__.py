"""The outside programs and libraries that stages drive; none of them knows of pipelines."""
