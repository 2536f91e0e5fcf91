"""MathML as a line of plain text: what stands above, below and under roots keeps its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from llmpipe.documents import notation

if TYPE_CHECKING:
    from bs4 import Tag

OPERATORS = set("=<>+−±∓×⋅·÷≤≥≠≈≡∼≃→⇒⇔↔←∈∉⊂⊆∪∩∧∨∝≪≫∖∗") | {"-", ":=", "==", "&lt;"}
"""What has spaces around it between two operands."""

ACCENTS = {"¯": "mean", "‾": "mean", "_": "mean", "^": "hat", "ˆ": "hat", "~": "tilde",
           "˜": "tilde", "→": "vec", "⃗": "vec", "˙": "dot", "¨": "ddot"}  # fmt: skip
"""What a sign above a letter is called."""

_UNSEEN = re.compile("[⁡-⁤​]")
_SPACES = re.compile(r"\s+")


def linear(node: Tag) -> str:
    """Return a formula as text."""
    return _SPACES.sub(" ", _row(node)).strip()


def accented(base: str, mark: str) -> str:
    """Return a letter with the sign above it; what is no sign stands there as a limit."""
    mark = mark.strip()
    if mark in ACCENTS:
        return f"{ACCENTS[mark]}({base})"
    return notation.power(base, mark)


def joined(parts: Iterable[str]) -> str:
    """Return the parts of a row in a line, with spaces where they would run into each other."""
    line = ""
    for part in filter(None, parts):
        if part in OPERATORS:
            sign = not line or line.endswith((" ", "(", "[", ","))
            line += part if sign else f" {part} "
        else:
            line += part if _touches(line, part) else f" {part}"
    return line


def _touches(line: str, part: str) -> bool:
    """Tell whether a part follows a row without a space."""
    if not line or line[-1] in "([{|√ " or part[0] in ")]},;.!'′|":
        return True
    return line[-1] in "+−-±" or (part[0] in "([{" and line[-1].isalnum())


def _parts(node: Tag) -> list[Tag]:
    from bs4 import Tag

    return [child for child in node.children if isinstance(child, Tag)]


def _linear(node: Tag) -> str:
    name = node.name.rpartition(":")[2]
    if name in _LEAVES:
        return _SPACES.sub(" ", _UNSEEN.sub("", node.get_text())).strip()
    writer = _WRITERS.get(name)
    if writer is None:
        return _row(node)
    parts = [_linear(child) for child in _parts(node)]
    return writer([*parts, "", "", ""][: max(3, len(parts))])


def _row(node: Tag) -> str:
    parts = _parts(node)
    return joined(map(_linear, parts)) if parts else node.get_text().strip()


def _limits(parts: list[str]) -> str:
    base, below, above = parts[:3]
    return f"{base}_{notation.grouped(below)}^{notation.grouped(above)}"


def _fenced(parts: list[str]) -> str:
    return f"({', '.join(filter(None, parts))})"


def _prescripts(parts: list[str]) -> str:
    base, *scripts = parts
    marks = zip(scripts[::2], scripts[1::2], strict=False)
    return base + "".join(
        (f"_{notation.grouped(low)}" if low else "")
        + (f"^{notation.grouped(high)}" if high else "")
        for low, high in marks
    )


_LEAVES = {"mi", "mn", "mo", "mtext", "ms"}

_WRITERS: Mapping[str, Callable[[list[str]], str]] = {
    "annotation": lambda parts: "",
    "annotation-xml": lambda parts: "",
    "maction": lambda parts: parts[0],
    "mfenced": _fenced,
    "mfrac": lambda parts: notation.fraction(parts[0], parts[1]),
    "mmultiscripts": _prescripts,
    "mover": lambda parts: accented(parts[0], parts[1]),
    "mphantom": lambda parts: "",
    "mroot": lambda parts: notation.root(parts[0], parts[1]),
    "mspace": lambda parts: "",
    "msqrt": lambda parts: notation.root(joined(parts)),
    "msub": lambda parts: notation.indexed(parts[0], parts[1]),
    "msubsup": _limits,
    "msup": lambda parts: notation.power(parts[0], parts[1]),
    "mtable": lambda parts: "; ".join(filter(None, parts)),
    "mtr": lambda parts: ", ".join(filter(None, parts)),
    "munder": lambda parts: notation.indexed(parts[0], parts[1]),
    "munderover": _limits,
}
