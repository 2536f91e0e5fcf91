"""The engine: what is fresh and why not, one worker process per stage, a store that never tears."""
