"""The subprocess that opens a model folder with transformers and serves it by llama.cpp's protocol.

``transformers serve`` is not used. It asks for no key, ignores fields that it knows but does not
support (``max_completion_tokens``, ``response_format``, ``tool_choice``, ``logprobs`` …), turns
``frequency_penalty`` into another penalty, and has neither a limit of the context nor a route that
shows how a chat is rendered.
"""

from __future__ import annotations

import sys

from llmpipe.backends.huggingface.transformers_model import Model
from llmpipe.backends.llama_cpp.single_server import serve

if __name__ == "__main__":
    sys.exit(serve(Model))
