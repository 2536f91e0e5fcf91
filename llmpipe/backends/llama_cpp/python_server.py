"""The subprocess that opens a GGUF with llama-cpp-python and serves it by llama.cpp's protocol.

llama-cpp-python's own server is not used: it cuts streams when another request arrives, replaces
some chat templates by guesses, and ignores fields that it does not know.
"""

from __future__ import annotations

import sys

from llmpipe.backends.llama_cpp.python_model import Model
from llmpipe.backends.llama_cpp.single_server import serve

if __name__ == "__main__":
    sys.exit(serve(Model))
