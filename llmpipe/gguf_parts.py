"""The file names of a split GGUF: ``X-00001-of-00003.gguf`` and its two siblings are one model.

llama.cpp writes such names and finds the other parts by the name of the first. This module only
reads names; `llmpipe.backends.llama_cpp.gguf_file` checks that the files belong together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """The information in the name of a part.

    Attributes:
        stem: The common beginning of all parts' names.
        number: The number of this part, starting at 1.
        count: The number of parts.
    """

    stem: str
    number: int
    count: int

    def name(self, number: int) -> str:
        """Return the file name of another part of the same GGUF."""
        return f"{self.stem}{self.ending(number)}"

    def ending(self, number: int) -> str:
        """Return the rest of a part's file name after the stem."""
        return f"-{number:05d}-of-{self.count:05d}.gguf"


def part_of(name: str) -> Part | None:
    """Read a file name as that of a part of a split GGUF; return None if it is not one."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    part = Part(match["stem"], int(match["number"]), int(match["count"]))
    return part if 1 <= part.number <= part.count and part.count > 1 else None


def all_parts(path: Path) -> tuple[Path, ...]:
    """Return the files of the GGUF at a path, in order; most GGUFs are one file.

    This does not check that the files exist.
    """
    part = part_of(path.name)
    if part is None:
        return (path,)
    return tuple(path.with_name(part.name(number)) for number in range(1, part.count + 1))
