"""What the engine itself costs, beside DVC and Snakemake: ``python -m benchmarks.engine``.

All three are given the same graph of trivial stages (`chains`), are asked for the same things
(`tools`), and are measured in the same way (`measure`), one after the other in one go.
"""
