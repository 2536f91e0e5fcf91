"""Quantize a GGUF with llama.cpp's own `llama_model_quantize`, as a script in its own process.

The package cyllama exports the function, but takes no importance matrix. Each line of standard input
is a JSON object: ``source``, ``target`` and ``ftype``.
"""

import json
import sys

from cyllama.llama import llama_cpp

if __name__ == "__main__":
    llama_cpp.disable_logging()
    for line in sys.stdin:
        job = json.loads(line)
        params = llama_cpp.LlamaModelQuantizeParams()
        params.ftype, params.nthread = job["ftype"], 1
        llama_cpp.model_quantize(job["source"], job["target"], params)
