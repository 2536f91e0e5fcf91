"""Read and write files with one JSON value of the same type per line, such as documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from llmpipe.errors import StageError

T = TypeVar("T", bound=msgspec.Struct)


def write_lines(path: Path, values: Iterable[T]) -> int:
    """Write one value per line and return their number."""
    count, encoder = 0, msgspec.json.Encoder()
    with path.open("wb") as file:
        for value in values:
            file.write(encoder.encode(value) + b"\n")
            count += 1
    return count


def read_lines(path: Path, type_: type[T]) -> Iterator[T]:
    """Yield the values of a file that `write_lines` wrote.

    Raises:
        StageError: a line does not contain such a value.
    """
    decoder = msgspec.json.Decoder(type_)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decoder.decode(line)
            except msgspec.MsgspecError as error:
                what = type_.__name__.lower()
                raise StageError(f"{path.name}:{number}: not a {what}: {error}") from None
