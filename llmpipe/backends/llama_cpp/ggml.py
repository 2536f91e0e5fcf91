"""Call ggml's functions in the library that also serves the files, by ctypes.

xllamacpp has no call that quantizes, but its library exports ggml's kernels. They compute the bytes
that llama.cpp's own ``llama-quantize`` writes.
"""

from __future__ import annotations

import ctypes
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmpipe.errors import MissingDependencyError

_INT64, _POINTER = ctypes.c_int64, ctypes.c_void_p
_FUNCTIONS = {
    "ggml_row_size": (ctypes.c_size_t, (ctypes.c_int, _INT64)),
    "ggml_quantize_chunk": (
        ctypes.c_size_t, (ctypes.c_int, _POINTER, _POINTER, _INT64, _INT64, _INT64, _POINTER)
    ),
    "ggml_validate_row_data": (ctypes.c_bool, (ctypes.c_int, _POINTER, ctypes.c_size_t)),
}  # fmt: skip
"""The result and the arguments of each function."""


@cache
def library() -> ctypes.CDLL:
    """Load xllamacpp's library.

    Raises:
        MissingDependencyError: xllamacpp is not installed, or does not export the functions.
    """
    loaded = ctypes.CDLL(str(library_file()))
    for name, (result, arguments) in _FUNCTIONS.items():
        try:
            function = getattr(loaded, name)
        except AttributeError:
            raise MissingDependencyError(
                f"this build of xllamacpp does not export {name}, which quantizing needs",
                hint="install the wheel from PyPI: pip install 'llmpipe[gguf]'",
            ) from None
        function.restype, function.argtypes = result, arguments
    return loaded


def row_size(kind: int, width: int) -> int:
    """Return the bytes of a row of ``width`` weights in a type, given by its number."""
    return int(library().ggml_row_size(kind, width))


def quantize_rows(kind: int, rows: Any, importance: Any | None) -> Any | None:
    """Quantize rows of float32 and return their bytes; None if a result is not finite.

    Args:
        kind: the number of the type.
        rows: a contiguous array of shape (rows, width).
        importance: how much each column matters, shape (width,), or None.
    """
    import numpy as np

    ggml, (count, width) = library(), rows.shape
    found = np.empty(count * row_size(kind, width), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    ggml.ggml_quantize_chunk(kind, rows.ctypes.data, found.ctypes.data, 0, count, width, weights)
    valid = ggml.ggml_validate_row_data(kind, found.ctypes.data, found.nbytes)
    return found if valid else None


def library_file() -> Path:
    """Return the file of xllamacpp's library.

    Raises:
        MissingDependencyError: xllamacpp is not installed.
    """
    spec = find_spec("xllamacpp")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for suffix in ("so", "pyd", "dylib"):
            for file in Path(folder).glob(f"xllamacpp*.{suffix}"):
                return file
    raise MissingDependencyError(
        "quantizing a GGUF needs xllamacpp", hint="pip install 'llmpipe[gguf]'"
    )
