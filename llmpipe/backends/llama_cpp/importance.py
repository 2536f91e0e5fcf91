"""Write and read an importance matrix in llama.cpp's format, as ``llama-imatrix`` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.llama_cpp.gguf_file import open_gguf
from llmpipe.errors import StageError

SUMS, COUNTS = ".in_sum2", ".counts"
"""The two tensors of each weight: sums of squared inputs, and the number of inputs."""


def write_importance(
    path: Path,
    sums: Mapping[str, tuple[Any, int]],
    *,
    data: str,
    texts: int,
) -> None:
    """Write an importance matrix.

    Args:
        path: the file to write.
        sums: by tensor of the model the sums of squared inputs, shape (width,), and their count.
        data: the name of the calibration data.
        texts: the number of texts that the model read; each counts as a chunk.
    """
    import numpy as np
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "")
    writer.kv_data[0].clear()  # an importance matrix has no architecture
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", [data])
    writer.add_uint32("imatrix.chunk_count", texts)
    writer.add_uint32("imatrix.chunk_size", 1)
    for name, (squares, count) in sorted(sums.items()):
        writer.add_tensor(name + SUMS, np.asarray(squares, np.float32)[None])
        writer.add_tensor(name + COUNTS, np.array([[count]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_importance(path: Path) -> dict[str, Any]:
    """Return by tensor the mean squared input of each column: float32, shape (experts, width).

    Raises:
        StageError: the file is not an importance matrix.
    """
    import numpy as np

    opened = open_gguf(path)
    if opened.fields.get("general.type") != "imatrix":
        raise StageError(
            f"{path.name} is not an importance matrix in GGUF format",
            hint="older llama.cpp wrote .dat files: make it again with a newer llama-imatrix",
        )
    tensors = {tensor.name: tensor.data for part in opened.readers for tensor in part.tensors}
    found = {}
    for name, squares in tensors.items():
        if not name.endswith(SUMS):
            continue
        weight = name.removesuffix(SUMS)
        counts = tensors[weight + COUNTS].reshape(-1, 1)
        # An expert that no token reached tells nothing: as in llama.cpp, all its columns are alike.
        means = np.where(counts > 0, squares.reshape(len(counts), -1) / np.maximum(counts, 1), 1)
        found[weight] = means.astype(np.float32)
    return found
