"""How long a stream pauses while another caller's prompt is computed, and what the guard costs.

One answer is streamed while a long prompt is put to the other slot of the same server, at several
batches beside llama.cpp's own. ``python -m benchmarks.serve --help`` lists what can be chosen.
"""
