"""Make explicit in Word's XML what Word only displays: numbers, equations, headers, hidden text.

The library that reads the XML afterwards (mammoth) does not handle these: it numbers each list from
1, leaves out equations and fields, and keeps hidden text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from llmpipe.documents import docx_frames, omml
from llmpipe.documents.archive import parsed
from llmpipe.documents.docx_names import (
    MC,
    Styles,
    W,
    integer,
    raised_of,
    read_styles,
    switched,
    value_of,
)
from llmpipe.documents.docx_numbers import Numbers

LABEL = "\ufdd2"
"""Surrounds the number of a paragraph; Unicode reserves this character for internal use."""

STORIES = ("document", "footnotes", "endnotes")
"""Roots of parts with text."""

LEFT_OUT = {
    "{http://schemas.openxmlformats.org/drawingml/2006/chart}chart": "chart",
    "{http://schemas.openxmlformats.org/drawingml/2006/diagram}relIds": "diagram",
    W + "altChunk": "embedded file",
    W + "commentReference": "comment",
}
"""Elements with text that is not read."""


def explicit(parts: Mapping[str, bytes]) -> tuple[dict[str, bytes], Counter[str]]:
    """Return the parts of a Word file with all displayed text, and counts of what is left out."""
    from lxml import etree

    found = dict(parts)
    roots = {name: parsed(xml) for name, xml in parts.items() if _has_text(name)}
    styles = read_styles(_one(roots, "styles"))
    numbers = Numbers(_one(roots, "numbering"), styles)
    left_out: Counter[str] = Counter()
    for root in roots.values():
        kind = root.tag.removeprefix(W)
        if kind in STORIES or kind in docx_frames.FRAMES:
            _Story(styles, numbers, left_out).rewrite(root)
    for name, root in roots.items():
        if root.tag == W + "document":
            docx_frames.put_in(root, docx_frames.of(name, roots, parts))
        if root.tag.removeprefix(W) in STORIES:
            found[name] = etree.tostring(root, encoding="utf-8", xml_declaration=True)
    return found, left_out


def _has_text(name: str) -> bool:
    return name.startswith("word/") and name.endswith(".xml") and name.count("/") == 1


def _one(roots: Mapping[str, Any], kind: str) -> Any:
    return next((root for root in roots.values() if root.tag == W + kind), None)


class _Story:
    """Rewrites one part of a document."""

    def __init__(self, styles: Styles, numbers: Numbers, left_out: Counter[str]) -> None:
        self._styles = styles
        self._numbers = numbers
        self._left_out = left_out
        self._hidden_paragraph = False
        self._writers: Mapping[str, Callable[[Any], None]] = {
            omml.NAMESPACE + "oMath": self._equation,
            omml.NAMESPACE + "oMathPara": self._equation,
            W + "bdo": _unwrap,
            W + "bookmarkStart": _not_in_table,
            W + "bookmarkEnd": _not_in_table,
            W + "dir": _unwrap,
            W + "fldSimple": _unwrap,
            W + "p": self._paragraph,
            W + "r": self._run,
            W + "ruby": _ruby,
            W + "sdt": _not_in_table,
            W + "tr": _row,
        }

    def rewrite(self, root: Any) -> None:
        """Rewrite a part in the order of its text."""
        for element in list(root.iter(MC + "AlternateContent")):
            _choose(element)
        for element in list(root.iter()):
            writer = self._writers.get(element.tag)
            if writer is not None and element.getparent() is not None:
                writer(element)
            elif element.tag in LEFT_OUT:
                self._left_out[LEFT_OUT[element.tag]] += 1

    def _paragraph(self, paragraph: Any) -> None:
        properties = paragraph.find(W + "pPr")
        style = value_of(properties, "pStyle")
        self._hidden_paragraph = bool(self._styles.value(style, "hidden"))
        label = self._numbers.of(paragraph)
        if label is not None:
            at = 0 if properties is None else 1
            paragraph.insert(at, _run_of(f"{LABEL}{label}{LABEL}"))

    def _run(self, run: Any) -> None:
        properties = run.find(W + "rPr")
        style = value_of(properties, "rStyle")
        hidden = switched(properties, "vanish")
        if hidden is None:
            hidden = self._styles.value(style, "hidden")
        if hidden is None:
            hidden = self._hidden_paragraph
        if hidden and run.find(W + "fldChar") is None and not _is_label(run):
            run.getparent().remove(run)
        elif properties is not None and properties.find(W + "vertAlign") is None:
            raised = raised_of(properties, _size_beside(run)) or self._styles.value(style, "raised")
            if raised and run.find(W + "footnoteReference") is None:
                _child(properties, "vertAlign").set(W + "val", raised)

    def _equation(self, element: Any) -> None:
        text = omml.linear(element)
        new = _run_of(f" {text} " if element.tag.endswith("oMath") else text)
        _replace(element, [new])


def _size_beside(run: Any) -> int | None:
    """Return the size of the letters beside a raised or lowered run, if known."""
    if value_of(run.find(W + "rPr"), "position") is None:
        return None
    others = [*run.itersiblings(W + "r", preceding=True), *run.itersiblings(W + "r")]
    for properties in (other.find(W + "rPr") for other in others):
        if value_of(properties, "position") is None:
            return integer(value_of(properties, "sz"), 0) or None
    return None


def _choose(element: Any) -> None:
    """Keep one of several alternatives: the fallback for older readers."""
    choices = element.findall(MC + "Choice")
    if element.find(MC + "Fallback") is None and choices:
        first = choices.pop(0)
        first.tag = MC + "Fallback"
        boxes = list(first.iter(W + "txbxContent"))
        if boxes:
            for child in list(first):
                first.remove(child)
            _child(first, "pict").extend(boxes)
    for choice in choices:
        element.remove(choice)


def _is_label(run: Any) -> bool:
    return any((text.text or "").startswith(LABEL) for text in run.findall(W + "t"))


def _run_of(text: str) -> Any:
    from lxml import etree

    run = etree.Element(W + "r")
    written = _child(run, "t")
    written.text = text
    written.set("{http://www.w3.org/XML/1998/namespace}space", "preserve")
    return run


def _child(parent: Any, name: str) -> Any:
    from lxml import etree

    return etree.SubElement(parent, W + name)


def _replace(element: Any, by: list[Any]) -> None:
    parent = element.getparent()
    at = parent.index(element)
    parent.remove(element)
    for offset, new in enumerate(by):
        parent.insert(at + offset, new)


def _unwrap(element: Any) -> None:
    _replace(element, [child for child in element if not child.tag.endswith("Pr")])


def _not_in_table(element: Any) -> None:
    """Unwrap an element unless tables and rows may contain it: merged cells depend on that."""
    if element.getparent().tag not in (W + "tbl", W + "tr"):
        return
    content = element.find(W + "sdtContent")
    _replace(element, [] if content is None else list(content))


def _ruby(element: Any) -> None:
    """Put the reading of characters after them, in parentheses."""
    base, reading = (
        "".join(text.text or "" for text in part.iter(W + "t")) if part is not None else ""
        for part in (element.find(W + "rubyBase"), element.find(W + "rt"))
    )
    written = _child(element.getparent(), "t")
    written.text = f"{base}({reading})" if reading else base
    _replace(element, [written])


def _row(row: Any) -> None:
    """Fill the columns that a row skips, so that its cells are in the right columns."""
    properties = row.find(W + "trPr")
    if properties is None:
        return
    if switched(properties, "hidden"):
        row.getparent().remove(row)
        return
    for name, at in (("gridBefore", row.index(properties) + 1), ("gridAfter", len(row))):
        for _ in range(min(integer(value_of(properties, name), 0), 63)):
            cell = _child(row, "tc")
            _child(cell, "p")
            row.insert(at, cell)
