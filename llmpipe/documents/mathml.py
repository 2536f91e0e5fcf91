"""Write MathML as a line of plain text, with scripts, limits and roots in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from llmpipe.documents import notation

if TYPE_CHECKING:
    from bs4 import Tag

OPERATORS = set("=<>+−±∓×⋅·÷≤≥≠≈≡∼≃→⇒⇔↔←∈∉⊂⊆∪∩∧∨∝≪≫∖∗") | {"-", ":=", "==", "&lt;"}
"""Operators with spaces around them between two operands."""

ACCENTS = {"¯": "mean", "‾": "mean", "_": "mean", "^": "hat", "ˆ": "hat", "~": "tilde",
           "˜": "tilde", "→": "vec", "⃗": "vec", "˙": "dot", "¨": "ddot"}  # fmt: skip
"""Names of signs above a letter."""

_NO_BAR = re.compile(r"\s*0*\.?0+\s*(?:[a-z]+|%)?\s*")
_UNSEEN = re.compile("[⁡-⁤​]")
_SPACES = re.compile(r"\s+")


def linear(node: Tag) -> str:
    """Return a formula as text."""
    return _SPACES.sub(" ", _row(node)).strip()


def accented(base: str, mark: str) -> str:
    """Return a letter with the sign above it; anything else above it becomes a power."""
    mark = mark.strip()
    if mark in ACCENTS:
        return f"{ACCENTS[mark]}({base})"
    return notation.power(base, mark)


def scripts(written: Sequence[str], base: str = "") -> str:
    """Return a letter with its lower and upper scripts in turn; each may be empty."""
    marks = ((mark, script) for mark, script in zip(cycle("_^"), written, strict=False) if script)
    return base + "".join(mark + notation.grouped(script) for mark, script in marks)


def joined(parts: Iterable[str]) -> str:
    """Return the parts of a row as one line, with spaces where they would run together."""
    line = before = ""
    for part in filter(None, parts):
        if part in OPERATORS:
            sign = not line or line.endswith((" ", "(", "[", ","))
            line += part if sign else f" {part} "
        else:
            stands_before = before.startswith(("^", "_"))  # a script of what follows: ^14C
            line += part if stands_before or _touches(line, part) else f" {part}"
        before = part
    return line


def _touches(line: str, part: str) -> bool:
    """Return whether a part follows a row without a space."""
    if not line or line[-1] in "([{|√ " or part[0] in ")]},;.!'′|":
        return True
    return line[-1] in "+−-±" or (part[0] in "([{" and line[-1].isalnum())


def _parts(node: Tag) -> list[Tag]:
    from bs4 import Tag

    return [child for child in node.children if isinstance(child, Tag)]


def _linear(node: Tag) -> str:
    name = _name(node)
    if name in _LEAVES:
        return _SPACES.sub(" ", _UNSEEN.sub("", node.get_text())).strip()
    whole = _OF_NODES.get(name)
    if whole is not None:
        return whole(node)
    writer = _WRITERS.get(name)
    if writer is None:
        return _row(node)
    parts = [_linear(child) for child in _parts(node)]
    return writer([*parts, "", "", ""][: max(3, len(parts))])


def _name(node: Tag) -> str:
    return node.name.rpartition(":")[2]


def _row(node: Tag) -> str:
    parts = _parts(node)
    return joined(map(_linear, parts)) if parts else node.get_text().strip()


def _limits(parts: list[str]) -> str:
    return scripts(parts[1:3], parts[0])


def _fenced(parts: list[str]) -> str:
    return f"({', '.join(filter(None, parts))})"


def _multiscripts(node: Tag) -> str:
    """Write the scripts after a letter, and those before it."""
    parts = _parts(node)
    if not parts:
        return ""
    base, *others = parts
    names = [_name(other) for other in others]
    at = names.index("mprescripts") if "mprescripts" in names else len(names)
    behind, before = (
        [_linear(other) for other in part] for part in (others[:at], others[at + 1 :])
    )
    return scripts(before) + scripts(behind, _linear(base))


def _fraction(node: Tag) -> str:
    above, below, *_ = [*map(_linear, _parts(node)), "", ""]
    if not _NO_BAR.fullmatch(str(node.get("linethickness", "1"))):
        return notation.fraction(above, below)
    return notation.stacked(above, below, in_brackets=_is_in_brackets(node))


def _is_in_brackets(node: Tag) -> bool:
    """Return whether a node is directly inside a pair of parentheses."""
    while node.parent is not None and _name(node) != "math":
        parts = _parts(node.parent)
        if len(parts) > 1 or _name(node.parent) == "mfenced":
            break
        node = node.parent
    else:
        return False
    at = next(at for at, part in enumerate(parts) if part is node)
    around = [
        part.get_text().strip() for part in (*parts[max(at - 1, 0) : at], *parts[at + 1 : at + 2])
    ]
    return around == ["(", ")"] or (len(parts) == 1 and _name(node.parent) == "mfenced")


_LEAVES = {"mi", "mn", "mo", "mtext", "ms"}

_OF_NODES: Mapping[str, Callable[[Tag], str]] = {"mfrac": _fraction, "mmultiscripts": _multiscripts}

_WRITERS: Mapping[str, Callable[[list[str]], str]] = {
    "annotation": lambda parts: "",
    "annotation-xml": lambda parts: "",
    "maction": lambda parts: parts[0],
    "mfenced": _fenced,
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
