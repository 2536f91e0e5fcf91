"""The processes that are measured, each a module; see `benchmarks.rag.contender`.

Those of the peers run in a virtual environment without llmpipe: they import nothing of it.
"""
