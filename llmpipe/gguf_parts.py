"""The files of a split GGUF: ``X-00001-of-00003.gguf`` and its two siblings are one model.

llama.cpp writes such names, and finds the other parts by the name of the first. Only names are
looked at here; that the files belong together is for `llmpipe.backends.llama_cpp.gguf_file` to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """What the name of a part says.

    Attributes:
        stem: what the names of all parts begin with.
        number: which part it is; the first is 1.
        count: how many parts there are.
    """

    stem: str
    number: int
    count: int

    def name(self, number: int) -> str:
        """Return the file name of another part of the same GGUF."""
        return f"{self.stem}{self.ending(number)}"

    def ending(self, number: int) -> str:
        """Return what follows the stem in the name of a part."""
        return f"-{number:05d}-of-{self.count:05d}.gguf"


def part_of(name: str) -> Part | None:
    """Read the name of a file as that of a part of a split GGUF; None if it is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    part = Part(match["stem"], int(match["number"]), int(match["count"]))
    return part if 1 <= part.number <= part.count and part.count > 1 else None


def all_parts(path: Path) -> tuple[Path, ...]:
    """Return the files of the GGUF that a path names, in order; most GGUFs are one file.

    Whether the files exist is not looked at.
    """
    part = part_of(path.name)
    if part is None:
        return (path,)
    return tuple(path.with_name(part.name(number)) for number in range(1, part.count + 1))
