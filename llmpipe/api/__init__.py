"""The Python API: load a spec, plan and run it, read its artifacts, serve and ask its stages.

The command line stands on top of it. `llmpipe` itself exports what users need, and imports it only
when it is used.
"""
