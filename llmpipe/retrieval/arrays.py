"""Read NumPy arrays from files that may be damaged."""

from __future__ import annotations

import tokenize
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.errors import StageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DAMAGED = (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile)
"""Exceptions that NumPy raises for a damaged file."""


def read_array(path: Path, what: str, hint: str) -> NDArray[Any]:
    """Memory-map an array; pickled objects are refused.

    Raises:
        StageError: the file does not contain an array.
    """
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED as error:
        raise StageError(f"{path} cannot be read as {what}: {error}", hint=hint) from None
    if not isinstance(found, np.ndarray):  # a zip file of several arrays
        raise StageError(f"{path} cannot be read as {what}: it is not a single array", hint=hint)
    return found


def read_rows(path: Path, count: int, hint: str) -> NDArray[np.int64]:
    """Read sorted row numbers below ``count``; none when the file does not exist.

    Raises:
        StageError: the file contains something else.
    """
    import numpy as np

    if not path.exists():
        return np.empty(0, np.int64)
    rows = read_array(path, "a list of rows", hint)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        message = f"{path} contains {rows.dtype} of shape {rows.shape}, not a list of integers"
        raise StageError(message, hint=hint)
    if len(rows) and not (rows[0] >= 0 and rows[-1] < count and (rows[1:] > rows[:-1]).all()):
        message = f"{path} does not contain distinct rows from 0 to {count - 1} in ascending order"
        raise StageError(message, hint=hint)
    return rows.astype(np.int64)
