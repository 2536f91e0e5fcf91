"""Read a GGUF of one or several files, and join the parts if one file is needed.

A split GGUF is always read completely. transformers would read one part and silently fill the
tensors of the others with random values. A GGUF is untrusted, so call this in its own process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from llmpipe.backends.llama_cpp.gguf_write import NewTensor, stored_bytes, write_gguf
from llmpipe.errors import StageError
from llmpipe.gguf_parts import all_parts

PART_NUMBER = "split.no"
PART_COUNT = "split.count"
TENSOR_COUNT = "split.tensors.count"

_SPLIT = (PART_NUMBER, PART_COUNT, TENSOR_COUNT)


@dataclass(frozen=True)
class Gguf:
    """An opened GGUF.

    Attributes:
        path: Its file, or the first of its parts.
        readers: A `gguf.GGUFReader` for every part; the tensor data stays on disk.
    """

    path: Path
    readers: tuple[Any, ...]

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The metadata. In a split GGUF it is in the first part."""
        return {name: field.contents() for name, field in self.readers[0].fields.items()}

    @cached_property
    def types(self) -> frozenset[str]:
        """The types of its tensors in GGUF's spelling, such as ``F16`` and ``Q4_1``."""
        tensors = (tensor for reader in self.readers for tensor in reader.tensors)
        return frozenset(tensor.tensor_type.name for tensor in tensors)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, rows first, as in PyTorch."""
        return {
            tensor.name: tuple(int(n) for n in reversed(tensor.shape))
            for reader in self.readers
            for tensor in reader.tensors
        }


def open_gguf(path: Path) -> Gguf:
    """Open a GGUF by its file, or by the first of its parts.

    Raises:
        StageError: A part is missing, cut short, not a GGUF, or not the part that its name says.
    """
    gguf = Gguf(path, tuple(reader(part) for part in all_parts(path)))
    _check_parts(gguf)
    return gguf


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Return a GGUF's metadata fields and the shape of each tensor, of all its parts.

    Raises:
        StageError: As in `open_gguf`.
    """
    gguf = open_gguf(path)
    with _readable(path):
        return gguf.fields, gguf.shapes


@contextmanager
def whole_file(gguf: Gguf, work: Path) -> Iterator[Path]:
    """Yield a GGUF as one file; its parts are joined temporarily in ``work``.

    Raises:
        StageError: The joined file cannot be written.
    """
    if len(gguf.readers) == 1:
        yield gguf.path
        return
    joined = work / "joined.gguf"
    try:
        try:
            _join(gguf, joined)
        except OSError as error:
            size = sum(part.stat().st_size for part in all_parts(gguf.path)) / 1e9
            raise StageError(
                f"the parts of {gguf.path.name} cannot be joined: {error.strerror or error}",
                hint=f"the joined file takes {size:.1f} GB next to the store temporarily",
            ) from error
        yield joined
    finally:
        joined.unlink(missing_ok=True)


def reader(path: Path) -> Any:
    """Open a file with gguf's own reader, made several times faster.

    The reader cuts the metadata of a large vocabulary into a million views of a `numpy.memmap`.
    Views of a plain array over the same mapped bytes are much cheaper.

    Raises:
        StageError: The file is cut short or not a GGUF.
    """
    import numpy as np
    from gguf import gguf_reader

    class Reader(gguf_reader.GGUFReader):  # type: ignore[misc]
        data = property(
            lambda self: self.__dict__["data"],
            lambda self, mapped: self.__dict__.update(data=np.asarray(mapped)),
        )

    with _readable(path):
        return Reader(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise StageError(
            f"{path.name} cannot be read as GGUF: {error}",
            hint="the file may be cut short or in another format: fetch or export it again",
        ) from error


def _check_parts(gguf: Gguf) -> None:
    """Require that the parts agree with their names and contain every tensor once."""
    name, count = gguf.path.name, len(gguf.readers)
    counted = _number(gguf.readers[0], PART_COUNT)
    if count == 1 and (counted or 1) > 1:
        number = (_number(gguf.readers[0], PART_NUMBER) or 0) + 1
        raise StageError(
            f"{name} is part {number} of {counted} of a GGUF, but its name does not say so",
            hint=f"name the parts as they were written: NAME-00001-of-{counted:05d}.gguf and so on",
        )
    if count == 1:
        return
    for number, (part, reader) in enumerate(zip(all_parts(gguf.path), gguf.readers, strict=True)):
        said = (_number(reader, PART_NUMBER), _number(reader, PART_COUNT))
        if said != (number, count):
            raise StageError(
                f"{part.name} is not part {number + 1} of {count} by its own metadata: it says "
                f"{PART_NUMBER} {said[0]} (the first is 0), {PART_COUNT} {said[1]}",
                hint="fetch or split the GGUF again; parts of several files are mixed up",
            )
    names = Counter(tensor.name for reader in gguf.readers for tensor in reader.tensors)
    twice = next((tensor for tensor, times in names.items() if times > 1), None)
    wanted = _number(gguf.readers[0], TENSOR_COUNT)
    if twice is not None:
        raise StageError(f"{name}: the tensor {twice} is in several parts")
    if wanted is not None and wanted != len(names):
        raise StageError(
            f"the {count} parts of {name} contain {len(names)} tensors instead of {wanted}",
            hint="fetch or split the GGUF again; parts of several files are mixed up",
        )


def _number(reader: Any, key: str) -> int | None:
    field = reader.fields.get(key)
    return None if field is None else int(field.contents())


def _join(gguf: Gguf, target: Path) -> None:
    """Write all parts as one file: the first part's metadata unchanged, then every tensor."""
    first = gguf.readers[0]
    tensors = [
        NewTensor(
            tensor.name,
            tuple(map(int, tensor.shape)),
            int(tensor.tensor_type),
            int(tensor.n_bytes),
            partial(stored_bytes, reader, tensor),
        )
        for reader in gguf.readers
        for tensor in reader.tensors
    ]
    write_gguf(target, first, tensors, without=_SPLIT)
