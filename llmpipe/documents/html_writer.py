"""Write a prepared page as Markdown."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from llmpipe.documents.html_tables import COLUMNS
from llmpipe.documents.numbers import letters, roman
from llmpipe.documents.parts import one_line

LABEL = "data-label"
"""Attribute with the displayed number of a list item, if it is not a plain number."""

_HEADING_LIKE = re.compile(r"(?m)^(\s*)(#{1,6}\s)")
_BACKTICKS = re.compile(r"`{3,}")
_LINE = re.compile(r"(?m)^(?=.)")


@cache
def converter() -> Any:
    """Return the converter; it keeps no state between pages."""
    from markdownify import MarkdownConverter

    class Converter(MarkdownConverter):  # type: ignore[misc, unused-ignore]
        def escape(self, text: str, parent_tags: set[str]) -> str:
            return _HEADING_LIKE.sub(r"\1\\\2", text)

        def convert_a(self, el: Any, text: str, parent_tags: set[str]) -> str:
            address = el.get("href") or ""
            if (
                not address.startswith(("http://", "https://", "mailto:"))
                or "_noformat" in parent_tags
            ):
                return text
            label = text.strip()
            if "\n" in label and not _HEADING_LIKE.search(label):
                label = " ".join(label.split())  # a link ends with its paragraph
            return f"[{label}]({address})" if label and label != address else f"{address}"

        def convert_dd(self, el: Any, text: str, parent_tags: set[str]) -> str:
            base: Any = super()
            return f"\n{base.convert_dd(el, text, parent_tags)}"

        def convert_img(self, el: Any, text: str, parent_tags: set[str]) -> str:
            return one_line(el.get("alt") or "")

        def convert_li(self, el: Any, text: str, parent_tags: set[str]) -> str:
            text = (text or "").strip()
            if not text:
                return "\n"
            mark = _mark(el) if el.parent is not None and el.parent.name == "ol" else "- "
            return f"{mark}{_LINE.sub(' ' * len(mark), text).lstrip()}\n"

        def convert_pre(self, el: Any, text: str, parent_tags: set[str]) -> str:
            code = text.strip("\n")
            if not code.strip():
                return ""
            if "_inline" in parent_tags:
                return f" `{' '.join(code.split())}` "
            fence = max(("```", *(run + "`" for run in _BACKTICKS.findall(code))), key=len)
            return f"\n\n{fence}\n{code}\n{fence}\n\n"

        def convert_td(self, el: Any, text: str, parent_tags: set[str]) -> str:
            cell = " ".join(text.split()).replace("|", r"\|")
            return f" {cell} |"

        convert_th = convert_td

        def convert_tr(self, el: Any, text: str, parent_tags: set[str]) -> str:
            columns = el.attrs.get(COLUMNS)
            below = f"|{' --- |' * int(columns)}\n" if columns else ""
            return f"|{text}\n{below}"

    return Converter(heading_style="ATX", bullets="-")


def _mark(item: Any) -> str:
    """Return the marker of an item in a numbered list."""
    if LABEL not in item.attrs:
        _number(item.parent)
    label = item.attrs[LABEL]
    return f"{label} " if label else ""


def _number(listed: Any) -> None:
    """Number the items of a list as browsers do."""
    items = listed.find_all("li", recursive=False)
    step = -1 if "reversed" in listed.attrs else 1
    number = _integer(listed.get("start"), len(items) if step < 0 else 1)
    kind = str(listed.get("type", "1"))
    for item in items:
        number = _integer(item.get("value"), number)
        item.attrs.setdefault(LABEL, f"{_shown(number, kind)}.")
        number += step


def _integer(written: Any, otherwise: int) -> int:
    text = str(written).strip()
    return int(text) if re.fullmatch(r"-?\d{1,9}", text) else otherwise


def _shown(number: int, kind: str) -> str:
    if number < 1 or kind not in ("a", "A", "i", "I"):
        return str(number)
    shown = letters(number) if kind in "aA" else roman(number)
    return shown.upper() if kind in "AI" else shown
