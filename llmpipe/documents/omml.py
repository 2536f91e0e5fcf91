"""Write equations of Word and PowerPoint (OMML) as a line of plain text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from llmpipe.documents import notation
from llmpipe.documents.mathml import accented, joined, scripts

NAMESPACE = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"

_SIGNS = r"=<>+−±∓×⋅·÷≤≥≠≈≡→⇒⇔∈∉⊂∪∩∝()\[\]{},;|-"
_PIECES = re.compile(rf"[{_SIGNS}]|[^\s{_SIGNS}]+")


def linear(element: Any) -> str:
    """Return an equation, an lxml element ``m:oMath`` or ``m:oMathPara``, as text."""
    return " ".join(_row(element).split())


def _row(element: Any) -> str:
    if element is None:
        return ""
    return joined(piece for child in element for piece in _parts(child))


def _parts(element: Any) -> list[str]:
    name = _name(element)
    if name == "r":
        text = "".join(part.text or "" for part in element if _name(part) == "t")
        return _PIECES.findall(text)
    if name.endswith("Pr") or not isinstance(element.tag, str):
        return []
    writer = _WRITERS.get(name)
    return [writer(element)] if writer else [_row(element)]


def _name(element: Any) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _of(element: Any, name: str) -> str:
    """Return one part of a construct, such as its base, as text."""
    return _row(element.find(NAMESPACE + name))


def _property(element: Any, name: str, otherwise: str) -> str:
    path = f"{NAMESPACE}{_name(element)}Pr/{NAMESPACE}{name}"
    found = element.find(path)
    return otherwise if found is None else str(found.get(NAMESPACE + "val", ""))


def _fraction(element: Any) -> str:
    above, below = _of(element, "num"), _of(element, "den")
    if _property(element, "type", "bar") == "noBar":
        return notation.stacked(above, below, in_brackets=_is_in_brackets(element))
    return notation.fraction(above, below)


def _is_in_brackets(element: Any) -> bool:
    """Return whether an element is alone in a pair of parentheses."""
    part = element.getparent()
    around = part.getparent() if part is not None and len(part) == 1 else None
    if around is None or _name(around) != "d" or len(around.findall(part.tag)) > 1:
        return False
    return _property(around, "begChr", "(") == "(" and _property(around, "endChr", ")") == ")"


def _limits(base: str, element: Any) -> str:
    return scripts([_of(element, "sub"), _of(element, "sup")], base)


def _sum(element: Any) -> str:
    sign = _property(element, "chr", "∫")
    return f"{_limits(sign, element)} {_of(element, 'e')}"


def _brackets(element: Any) -> str:
    opening, closing = _property(element, "begChr", "("), _property(element, "endChr", ")")
    between = _property(element, "sepChr", ",")
    inner = [_row(child) for child in element.findall(NAMESPACE + "e")]
    return f"{opening}{f'{between} '.join(inner)}{closing}"


def _matrix(element: Any) -> str:
    rows = (
        ", ".join(_row(cell) for cell in row.findall(NAMESPACE + "e"))
        for row in element.findall(NAMESPACE + "mr")
    )
    return "; ".join(rows)


def _lines(element: Any) -> str:
    return "; ".join(_row(child) for child in element.findall(NAMESPACE + "e"))


def _before(element: Any) -> str:
    return f"{_limits('', element)}{_of(element, 'e')}"


def _function(element: Any) -> str:
    argument = _of(element, "e")
    apart = "" if argument.startswith("(") else " "
    return f"{_of(element, 'fName')}{apart}{argument}"


_WRITERS: Mapping[str, Callable[[Any], str]] = {
    "acc": lambda e: accented(_of(e, "e"), _property(e, "chr", "^").replace("̂", "^")),
    "bar": lambda e: f"mean({_of(e, 'e')})",
    "d": _brackets,
    "eqArr": _lines,
    "f": _fraction,
    "func": _function,
    "limLow": lambda e: notation.indexed(_of(e, "e"), _of(e, "lim")),
    "limUpp": lambda e: notation.power(_of(e, "e"), _of(e, "lim")),
    "m": _matrix,
    "nary": _sum,
    "oMathPara": lambda e: "; ".join(_row(child) for child in e.findall(NAMESPACE + "oMath")),
    "phant": lambda e: "",
    "rad": lambda e: notation.root(_of(e, "e"), _of(e, "deg")),
    "sPre": _before,
    "sSub": lambda e: notation.indexed(_of(e, "e"), _of(e, "sub")),
    "sSubSup": lambda e: _limits(_of(e, "e"), e),
    "sSup": lambda e: notation.power(_of(e, "e"), _of(e, "sup")),
}
