"""The subprocess that returns a GGUF's logits, computed by the library that serves it.

It runs as a script and llmpipe never imports it, so that a GGUF that crashes or subverts the parser
affects only this process. It reads one JSON line of settings from standard input, then a JSON line
per row: ``{"ids": […], "start": n}``. It answers with a JSON line, then for each row with the
logits that predict the tokens from ``start`` on: float32, shape (tokens, vocabulary).

It calls the C API by ctypes. The parameter structs are passed by value and grow with llama.cpp's
versions. Their defaults are therefore copied as they are into more room than any version needs, and
only the first three fields of the context's are changed, which have been the same since 2023.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any, BinaryIO

ROOM = 1024
"""Bytes for a parameter struct; the largest has about 200."""


class Parameters(ctypes.Structure):
    """A parameter struct of any version; the first fields are those of the context's."""

    _fields_ = (
        ("context", ctypes.c_uint32),
        ("batch", ctypes.c_uint32),
        ("microbatch", ctypes.c_uint32),
        ("rest", ctypes.c_uint8 * (ROOM - 12)),
    )


class Batch(ctypes.Structure):
    """``llama_batch``: the tokens of one call."""

    _fields_ = (
        ("count", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


POINTER = ctypes.c_void_p
FUNCTIONS = {
    "llama_backend_init": (None, ()),
    "llama_model_default_params": (Parameters, ()),
    "llama_context_default_params": (Parameters, ()),
    "llama_model_load_from_file": (POINTER, (ctypes.c_char_p, Parameters)),
    "llama_init_from_model": (POINTER, (POINTER, Parameters)),
    "llama_model_get_vocab": (POINTER, (POINTER,)),
    "llama_vocab_n_tokens": (ctypes.c_int32, (POINTER,)),
    "llama_n_ctx": (ctypes.c_uint32, (POINTER,)),
    "llama_set_n_threads": (None, (POINTER, ctypes.c_int32, ctypes.c_int32)),
    "llama_get_memory": (POINTER, (POINTER,)),
    "llama_memory_clear": (None, (POINTER, ctypes.c_bool)),
    "llama_decode": (ctypes.c_int32, (POINTER, Batch)),
    "llama_get_logits": (POINTER, (POINTER,)),
}
ADAPTER_FUNCTIONS = {
    "llama_adapter_lora_init": (POINTER, (POINTER, ctypes.c_char_p)),
    "llama_set_adapters_lora": (
        ctypes.c_int32,
        (POINTER, ctypes.POINTER(POINTER), ctypes.c_size_t, ctypes.POINTER(ctypes.c_float)),
    ),
}


def main() -> int:
    """Answer every row; return 1 if the model cannot be loaded or a row not be computed."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # llama.cpp's output goes to the log, not to the answer
    settings = json.loads(sys.stdin.readline())
    llama = ctypes.CDLL(settings["library"])
    _declare(llama, FUNCTIONS)
    llama.llama_backend_init()
    path = os.fsencode(settings["model"])
    model = llama.llama_model_load_from_file(path, llama.llama_model_default_params())
    if not model:
        return _failed(answer, "it cannot be loaded")
    parameters = llama.llama_context_default_params()
    parameters.context = parameters.batch = settings["context"]
    context = llama.llama_init_from_model(model, parameters)
    if not context or llama.llama_n_ctx(context) < settings["context"]:
        return _failed(answer, f"it has no context of {settings['context']} tokens")
    if settings["adapter"] and not _adapted(llama, model, context, settings["adapter"]):
        return _failed(answer, "the adapter cannot be loaded")
    llama.llama_set_n_threads(context, settings["threads"], settings["threads"])
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    _say(answer, {"vocabulary": vocabulary})
    for line in sys.stdin:
        row = json.loads(line)
        if not _answer_row(answer, llama, context, vocabulary, row["ids"], row["start"]):
            return 1
    return 0


def _declare(llama: Any, functions: dict[str, Any]) -> None:
    for name, (result, arguments) in functions.items():
        function = getattr(llama, name)
        function.restype, function.argtypes = result, arguments


def _adapted(llama: Any, model: Any, context: Any, file: str) -> bool:
    """Apply an adapter to the model; return whether that worked."""
    _declare(llama, ADAPTER_FUNCTIONS)
    adapter = llama.llama_adapter_lora_init(model, os.fsencode(file))
    if not adapter:
        return False
    adapters, scales = (POINTER * 1)(adapter), (ctypes.c_float * 1)(1.0)
    return bool(llama.llama_set_adapters_lora(context, adapters, 1, scales) == 0)


def _answer_row(
    answer: BinaryIO, llama: Any, context: Any, vocabulary: int, ids: list[int], start: int
) -> bool:
    count = len(ids) - 1  # nothing follows the last token
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    wanted = (ctypes.c_int8 * count)(*(int(place >= start - 1) for place in range(count)))
    tokens = (ctypes.c_int32 * count)(*ids[:count])
    if llama.llama_decode(context, Batch(count, tokens, None, None, None, None, wanted)):
        return False
    size = (len(ids) - start) * vocabulary * ctypes.sizeof(ctypes.c_float)
    answer.write(ctypes.string_at(llama.llama_get_logits(context), size))
    answer.flush()
    return True


def _say(answer: BinaryIO, value: dict[str, Any]) -> None:
    answer.write(json.dumps(value).encode() + b"\n")
    answer.flush()


def _failed(answer: BinaryIO, reason: str) -> int:
    _say(answer, {"error": reason})
    return 1


if __name__ == "__main__":
    sys.exit(main())
