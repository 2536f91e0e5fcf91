"""Convert PowerPoint: each slide is a page and a section, with tables, charts, diagrams and notes.

Hidden slides, pictures without a description and embedded objects are left out and reported. The
XML is read directly, because shape libraries skip groups, equations and diagrams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from llmpipe.documents import archive, html, markdown, omml
from llmpipe.documents.model import Page, Scalar
from llmpipe.documents.parts import Converted, one_line
from llmpipe.errors import StageError

P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
DGM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
DC = "{http://purl.org/dc/elements/1.1/}"

FRAMES = {"dt", "ftr", "hdr", "sldNum"}
"""Placeholders that are the same on every slide."""


def convert(data: bytes, label: str) -> Converted:
    """Convert a presentation.

    Raises:
        StageError: it is not a presentation, is encrypted, or is too large when unpacked.
    """
    if data.startswith(archive.OLE):
        raise StageError(
            f"{label} is encrypted or in PowerPoint's old format",
            hint="save it as .pptx without a password",
        )
    try:
        parts = archive.unpacked(data, label)
        return _Presentation(parts, label).converted()
    except StageError:
        raise
    except Exception as error:  # the libraries raise anything for a broken archive
        raise StageError(f"{label} is not a presentation that can be read: {error}") from None


class _Presentation:
    """Converts a presentation slide by slide."""

    def __init__(self, parts: Mapping[str, bytes], label: str) -> None:
        self._parts = parts
        self._label = label
        self._left_out: Counter[str] = Counter()

    def converted(self) -> Converted:
        """Return the slides in order; each ends where the next one begins."""
        texts: list[str] = []
        pages: list[Page] = []
        place = 0
        for number, name in enumerate(self._slides(), 1):
            root = archive.parsed(self._parts[name])
            if root.get("show") in ("0", "false"):
                self._left_out["hidden slide"] += 1
                continue
            text = html.of_text(self._slide(root, name, number), self._label).text + "\n\n"
            texts.append(text)
            pages.append(Page(number, place, place + len(text)))
            place += len(text)
        found = markdown.sectioned("".join(texts))
        title, metadata = self._properties()
        named = ", ".join(f"{name} ({count})" for name, count in sorted(self._left_out.items()))
        return Converted(
            found.text,
            found.sections,
            title or (found.sections[0].path[-1] if found.sections else ""),
            tuple(pages),
            metadata,
            (f"not read: {named}",) if named else (),
        )

    def _slides(self) -> Iterator[str]:
        name = "ppt/presentation.xml"
        related = archive.relations(self._parts, name)
        for slide in archive.parsed(self._parts[name]).iter(P + "sldId"):
            target = related.get(slide.get(R + "id", ""), ("", ""))[1]
            if target in self._parts:
                yield target

    def _properties(self) -> tuple[str, dict[str, Scalar]]:
        core = self._parts.get("docProps/core.xml")
        if core is None:
            return "", {}
        root = archive.parsed(core)
        title = one_line(root.findtext(DC + "title") or "")
        author = one_line(root.findtext(DC + "creator") or "")
        generic = title.lower() in ("powerpoint presentation", "powerpoint-präsentation")
        return "" if generic else title, {"author": author} if author else {}

    def _slide(self, root: Any, name: str, number: int) -> str:
        """Return a slide as HTML: its title, its content and the speaker's notes."""
        related = archive.relations(self._parts, name)
        tree = root.find(f"{P}cSld/{P}spTree")
        title = next(filter(None, map(_plain, self._titles(tree))), "") or f"Slide {number}"
        body = "".join(self._shapes(tree, related))
        notes = "".join(
            self._notes(target) for kind, target in related.values() if kind == "notesSlide"
        )
        return f"<h2>{escape(title)}</h2>{body}{notes}"

    def _titles(self, tree: Any) -> Iterator[Any]:
        for shape in tree.iter(P + "sp"):
            if _placeholder(shape) in ("title", "ctrTitle"):
                yield shape

    def _notes(self, name: str) -> str:
        if name not in self._parts:
            return ""
        root = archive.parsed(self._parts[name])
        bodies = (shape for shape in root.iter(P + "sp") if _placeholder(shape) == "body")
        text = "".join("".join(_paragraphs(shape, listed=False)) for shape in bodies)
        return f"<p>Notes:</p>{text}" if text else ""

    def _shapes(self, tree: Any, related: Mapping[str, tuple[str, str]]) -> Iterator[str]:
        for element in tree:
            tag = element.tag if isinstance(element.tag, str) else ""
            if tag == MC + "AlternateContent":
                choice = element.find(MC + "Choice")
                yield from self._shapes(element[0] if choice is None else choice, related)
            elif tag == P + "grpSp":
                yield from self._shapes(element, related)
            elif tag == P + "sp":
                kind = _placeholder(element)
                if kind not in (*FRAMES, "title", "ctrTitle"):
                    yield from _paragraphs(element, listed=kind in ("body", "obj", ""))
            elif tag == P + "graphicFrame":
                yield self._graphic(element, related)
            elif tag == P + "pic":
                yield self._picture(element)

    def _picture(self, element: Any) -> str:
        properties = element.find(f"{P}nvPicPr/{P}cNvPr")
        shown = "" if properties is None else properties.get("descr", "")
        if not shown:
            self._left_out["picture"] += 1
            return ""
        return f"<p>{escape(one_line(shown))}</p>"

    def _graphic(self, element: Any, related: Mapping[str, tuple[str, str]]) -> str:
        for found in element.iter(A + "tbl", C + "chart", DGM + "relIds"):
            if found.tag == A + "tbl":
                return _table(found)
            id_ = found.get(R + ("id" if found.tag == C + "chart" else "dm"), "")
            xml = self._parts.get(related.get(id_, ("", ""))[1])
            if xml is not None:
                root = archive.parsed(xml)
                return _chart(root) if found.tag == C + "chart" else _diagram(root)
        self._left_out["embedded object"] += 1
        return ""


def _placeholder(shape: Any) -> str | None:
    """Return the kind of a placeholder, '' for content, or None if the shape is not one."""
    found = shape.find(f"{P}nvSpPr/{P}nvPr/{P}ph")
    return None if found is None else str(found.get("type", ""))


def _plain(shape: Any) -> str:
    lines = (_line(paragraph) for paragraph in shape.iter(A + "p"))
    return one_line(html.of_text(f"<p>{' '.join(lines)}</p>", "").text)


def _paragraphs(shape: Any, *, listed: bool) -> Iterator[str]:
    """Yield the paragraphs of a shape as HTML; those of an outline become list items."""
    items: list[tuple[int, str]] = []
    for paragraph in shape.iter(A + "p"):
        line = _line(paragraph)
        if not line.strip():
            continue
        depth = _depth(paragraph, listed=listed)
        if depth is not None:
            items.append((depth, line))
            continue
        yield _list(items)
        items = []
        yield f"<p>{line}</p>"
    yield _list(items)


def _depth(paragraph: Any, *, listed: bool) -> int | None:
    """Return the level of a list item, or None if the paragraph is not one."""
    properties = paragraph.find(A + "pPr")
    if properties is None:
        return 0 if listed else None
    marks = {child.tag.removeprefix(A) for child in properties}
    if marks & {"buChar", "buAutoNum"} or (listed and "buNone" not in marks):
        return int(properties.get("lvl", "0"))
    return None


def _list(items: list[tuple[int, str]]) -> str:
    """Return items as nested lists; an item is at most one level deeper than the previous one."""
    html, here = "", -1
    for depth, line in items:
        if depth > here:
            html, here = f"{html}<ul><li>{line}", here + 1
        else:
            html += f"{'</li></ul>' * (here - depth)}</li><li>{line}"
            here = depth
    return html + "</li></ul>" * (here + 1)


def _line(paragraph: Any) -> str:
    """Return a paragraph as HTML: its runs, scripts and equations."""
    return "".join(_runs(paragraph))


def _runs(element: Any) -> Iterator[str]:
    for child in element:
        tag = child.tag if isinstance(child.tag, str) else ""
        if tag == A + "r":
            yield _run(child)
        elif tag == A + "br":
            yield "<br>"
        elif tag == A + "fld" and not child.get("type", "").startswith(("slidenum", "datetime")):
            yield escape(child.findtext(A + "t") or "")
        elif tag in (omml.NAMESPACE + "oMath", omml.NAMESPACE + "oMathPara"):
            yield f" {escape(omml.linear(child))} "
        elif tag == MC + "AlternateContent":
            choice = child.find(MC + "Choice")
            yield from _runs(child[0] if choice is None else choice)
        elif tag.endswith("}m"):  # a14:m, around an equation
            yield from _runs(child)


def _run(run: Any) -> str:
    text = escape(run.findtext(A + "t") or "")
    properties = run.find(A + "rPr")
    baseline = "0" if properties is None else properties.get("baseline", "0")
    if baseline.strip("0%") in ("", "-"):
        return text
    script = "sub" if baseline.startswith("-") else "sup"
    return f"<{script}>{text}</{script}>"


def _table(element: Any) -> str:
    rows = []
    for row in element.findall(A + "tr"):
        cells = []
        for cell in row.findall(A + "tc"):
            if cell.get("hMerge") in ("1", "true") or cell.get("vMerge") in ("1", "true"):
                continue
            spans = f'colspan="{cell.get("gridSpan", "1")}" rowspan="{cell.get("rowSpan", "1")}"'
            text = "<br>".join(_line(paragraph) for paragraph in cell.iter(A + "p"))
            cells.append(f"<td {spans}>{text}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _chart(root: Any) -> str:
    """Return a chart as a table with a row per category and a column per series."""
    title = "".join(text.text or "" for text in root.findall(f".//{C}title//{A}t"))
    series = list(root.iter(C + "ser"))
    head = [_points(one, "tx").get("0", "") for one in series]
    values = [{**_points(one, "yVal"), **_points(one, "val")} for one in series]
    names: dict[str, str] = {}
    for one in series:
        names |= {**_points(one, "xVal"), **_points(one, "cat")}
    places = sorted({at for one in values for at in one} | set(names), key=int)
    rows = [
        ["", *head],
        *([names.get(at, at), *(one.get(at, "") for one in values)] for at in places),
    ]
    cells = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<p>{escape(title)}</p><table>{cells}</table>"


def _points(series: Any, name: str) -> dict[str, str]:
    """Return the values of a part of a series by index."""
    found = series.find(C + name)
    if found is None:
        return {}
    return {point.get("idx", "0"): point.findtext(C + "v") or "" for point in found.iter(C + "pt")}


def _diagram(root: Any) -> str:
    points = root.iter(DGM + "pt")
    lines = (" ".join(_line(p) for p in point.iter(A + "p")).strip() for point in points)
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines if line)}</ul>"
