"""Is the estimate of a training's memory right? ``python -m benchmarks.memory``.

Twenty small trainings (`cases`) are run on fake tensors and for real on the CPU, where torch's
profiler counts every allocation (`allocations`). What others have published of large trainings on
GPUs (`published`) is held against the estimate.
"""
