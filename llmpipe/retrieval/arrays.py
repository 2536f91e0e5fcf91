"""Read arrays of NumPy's format from files that may be damaged."""

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
"""What NumPy raises where a file is not what it should be."""


def read_array(path: Path, what: str, hint: str) -> NDArray[Any]:
    """Map an array into memory; nothing is unpickled.

    Raises:
        StageError: the file holds no array.
    """
    import numpy as np

    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGED as error:
        raise StageError(f"{path} cannot be read as {what}: {error}", hint=hint) from None
    if not isinstance(found, np.ndarray):  # a zip file of several
        raise StageError(f"{path} cannot be read as {what}: it is no single array", hint=hint)
    return found


def read_rows(path: Path, count: int, hint: str) -> NDArray[np.int64]:
    """Read rows of ``count``, sorted; none where there is no file.

    Raises:
        StageError: the file holds something else.
    """
    import numpy as np

    if not path.exists():
        return np.empty(0, np.int64)
    rows = read_array(path, "a list of rows", hint)
    if rows.ndim != 1 or not np.issubdtype(rows.dtype, np.integer):
        told = f"{path} holds {rows.dtype} of shape {rows.shape}, not a list of whole numbers"
        raise StageError(told, hint=hint)
    if len(rows) and not (rows[0] >= 0 and rows[-1] < count and (rows[1:] > rows[:-1]).all()):
        told = f"{path} does not hold rows from 0 to {count - 1} in their order, each once"
        raise StageError(told, hint=hint)
    return rows.astype(np.int64)
