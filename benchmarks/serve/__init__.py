"""How long a stream pauses beside a long prompt, what the guard costs, and servers under load.

``pauses``: one answer is streamed while a long prompt is put to the other slot of the same server,
at several batches beside llama.cpp's own. ``load``: many clients stream answers from ``llmpipe
serve``, from the bare engine and from llama-cpp-python's server, each alone on the machine.
``python -m benchmarks.serve --help`` lists what can be chosen.
"""
