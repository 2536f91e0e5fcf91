"""The graph as Mermaid, DOT and SVG: complete, escaped, laid out so that it can be read."""

from __future__ import annotations

import itertools
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.cli.main import main
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.layout import LAYER_GAP, place
from llmpipe.graph.render import Arrow, Box, Picture, dot, mermaid, outline, picture
from llmpipe.graph.svg import HEIGHT, svg
from llmpipe.spec.read import read_spec

SVG = "{http://www.w3.org/2000/svg}"
RECIPE = """\
version: 1
name: recipe
stages:
  dataset: {kind: format, data: ./rows.jsonl, to: messages, split: {test: 0.1}}
  sft:
    kind: train
    base_model: ./base.gguf
    data: dataset
    axolotl: {adapter: lora}
    matrix: {axolotl.learning_rate: [1e-4, 2e-4]}
  dev: {kind: evaluate, models: [sft], data: dataset.test, metrics: [loss]}
  best: {kind: select, of: sft, by: dev.sft.loss, mode: min}
  gguf: {kind: export, model: best, quantize: [q8_0, f16]}
  chat: {kind: serve, model: gguf.q8_0}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec with a sweep and two derived stages."""
    (tmp_path / "rows.jsonl").write_text("{}\n", "utf-8")
    (tmp_path / "base.gguf").write_bytes(b"GGUF")
    path = tmp_path / "spec.yaml"
    path.write_text(RECIPE, "utf-8")
    return path


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    """Any graph without circles, with any texts in it."""
    names = draw(st.lists(st.text(min_size=1), max_size=14, unique=True))
    texts = st.text(max_size=50)
    boxes = tuple(
        Box(name, draw(texts), draw(texts), draw(texts), draw(st.booleans()),
            draw(st.sampled_from(["", "done", "failed", "blocked"])))
        for name in names
    )  # fmt: skip
    pairs = list(itertools.combinations(names, 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return Picture(boxes, tuple(Arrow(a, b, draw(texts)) for a, b in chosen))


def drawn(spec: Path) -> Picture:
    """Return the picture of a spec's graph."""
    return picture(outline(compile_spec(read_spec(spec))))


def as_xml(text: str) -> str:
    """Return a text as an XML parser reads it where it stands: no control characters, line ends as LF."""
    fit = re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
    return fit.replace("\r\n", "\n").replace("\r", "\n")


def plain(names: list[str], arrows: list[tuple[str, str]]) -> Picture:
    """Return a picture of stages that are called as said."""
    boxes = tuple(Box(name, name, "command", name) for name in names)
    return Picture(boxes, tuple(Arrow(a, b, "file") for a, b in arrows))


def test_the_picture_shows_every_stage_and_point(spec: Path) -> None:
    """Derived stages and the points of a sweep are boxes; arrows say what is read."""
    found = drawn(spec)
    boxes = {box.id: box for box in found.boxes}
    assert {name for name, box in boxes.items() if box.derived} == {
        "import_gguf:base",
        "merge:best",
    }
    point = boxes["sft@axolotl.learning_rate=0.0002"]
    assert (point.title, point.note) == ("sft", "learning_rate=0.0002")
    labels = {(arrow.source, arrow.target): arrow.label for arrow in found.arrows}
    assert labels["dataset", "dev@axolotl.learning_rate=0.0001"] == "dataset test"
    assert labels["sft@axolotl.learning_rate=0.0001", "best"] == "adapter"
    assert labels["gguf", "chat"] == "gguf q8_0"


def test_mermaid(spec: Path) -> None:
    """Nodes are numbered, derived ones dashed, and arrows lead between nodes that are there."""
    text = mermaid(drawn(spec))
    assert text.startswith("flowchart TD\n")
    assert '["merge#58;best' not in text
    assert '["merge:best<br><small>for gguf</small>"]:::derived\n' in text
    assert "classDef derived stroke-dasharray" in text
    nodes = set(re.findall(r"^  (n\d+)\[", text, re.M))
    ends = set(re.findall(r"^  (n\d+) -->.* (n\d+)$", text, re.M))
    assert len(nodes) == 10
    assert {name for pair in ends for name in pair} == nodes


def test_dot(spec: Path) -> None:
    """The same in Graphviz's language."""
    text = dot(drawn(spec))
    assert 'label="merge:best\\nfor gguf", style="rounded,dashed"]' in text
    assert '[label="gguf q8_0"]' in text
    assert text.count("->") == len(drawn(spec).arrows)


@given(pictures())
def test_any_svg_is_well_formed(found: Picture) -> None:
    """Whatever the texts hold, the SVG is XML, and each of them stands in it as text."""
    root = ET.fromstring(svg(found, title="<any> & all"))
    assert root.find(f"{SVG}title").text == "<any> & all"  # type: ignore[union-attr]
    told = [title.text or "" for title in root.iter(f"{SVG}title")]
    for box in found.boxes:
        assert as_xml(box.full) in told
    assert len(list(root.iter(f"{SVG}rect"))) == len(found.boxes)
    kinds = {node.tag.removeprefix(SVG) for node in root.iter()}
    assert kinds <= {"svg", "title", "style", "g", "rect", "text", "path"}


@given(pictures())
def test_any_dot_label_reads_back(found: Picture) -> None:
    """Every label ends where it should, and unescapes to the text that it was."""
    text = dot(found)
    labels = re.findall(
        r'^  n\d+ \[label="((?:[^"\\]|\\.)*)"(?:, style="rounded,dashed")?\]$', text, re.M
    )
    assert len(labels) == len(found.boxes)
    for box, label in zip(found.boxes, labels, strict=True):
        back = re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), label)
        expected = f"{box.title}\n{box.note}".replace("\r", " ").replace("\0", "\ufffd")
        assert back.replace("&amp;", "&") == expected


@given(st.text())
def test_any_mermaid_text_is_inert(text: str) -> None:
    """No sign that Mermaid, Markdown or HTML acts upon is left; numbers give the text back."""
    label = mermaid(Picture((Box("a", text, "", ""),), ())).split('"')[1].split("<br>")[0]
    assert not set(label) & set("<>\"'`&[]{}()|\\\n\t*")
    back = re.sub(r"#(\d+);", lambda m: chr(int(m[1])), label)
    assert back == text


@given(pictures())
def test_arrows_point_down_and_boxes_stand_apart(found: Picture) -> None:
    """Every arrow ends below where it began; no box covers another; all is inside the drawing."""
    sizes = {box.id: (60.0 + 5 * len(box.title), HEIGHT) for box in found.boxes}
    layout = place(sizes, [(a.source, a.target) for a in found.arrows])
    for a, b in layout.ways:
        ys = [y for _, y in layout.ways[a, b]]
        assert ys == sorted(ys)
        assert layout.boxes[b][1] > layout.boxes[a][1] + HEIGHT
    for one, other in itertools.combinations(layout.boxes, 2):
        (x, y), (x2, y2) = layout.boxes[one], layout.boxes[other]
        apart = x + sizes[one][0] <= x2 + 1e-6 or x2 + sizes[other][0] <= x + 1e-6
        assert apart or y + HEIGHT <= y2 or y2 + HEIGHT <= y
    for name, (x, y) in layout.boxes.items():
        assert -1e-6 <= x <= layout.width - sizes[name][0] + 1e-6
        assert 0 <= y <= layout.height - HEIGHT + 1e-6


def test_long_arrows_go_around() -> None:
    """An arrow past a layer does not run through the boxes that stand there."""
    names = ["a", "b", "c", "d"]
    sizes = dict.fromkeys(names, (100.0, HEIGHT))
    layout = place(sizes, [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")])
    for x, y in layout.ways["a", "d"][1:-1]:
        for name in "bc":
            left, top = layout.boxes[name]
            assert not (left < x < left + 100 and top <= y <= top + HEIGHT)


@pytest.mark.parametrize(
    ("arrows", "width"),
    [
        ([(i, i + 1) for i in range(999)], 200),
        ([], 1300),
        ([(0, i) for i in range(1, 999)] + [(i, 999) for i in range(1, 999)], 1300),
        ([(i, i + 1) for i in range(999)] + [(i, 999) for i in range(998)], 200),
    ],
    ids=["a chain", "nothing joined", "a sweep and its choice", "all gathered"],
)
def test_a_thousand_stages_can_be_read(arrows: list[tuple[int, int]], width: int) -> None:
    """They are laid out in well under a second, not wider than a window where that can be."""
    found = plain([f"s{i}" for i in range(1000)], [(f"s{a}", f"s{b}") for a, b in arrows])
    begun = time.process_time()
    root = ET.fromstring(svg(found, title="many"))
    assert time.process_time() - begun < 2
    assert float(root.attrib["width"]) <= width
    assert len(list(root.iter(f"{SVG}rect"))) == 1000


def test_one_stage_alone() -> None:
    """A graph of one stage is one box with a margin."""
    root = ET.fromstring(svg(plain(["only"], []), title="one"))
    assert float(root.attrib["height"]) < HEIGHT + LAYER_GAP


def test_the_command_prints_or_writes(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mermaid goes to standard output by default; --output names a file, whose path is printed."""
    assert main(["graph", str(spec)]) == 0
    assert capsys.readouterr().out == mermaid(drawn(spec))
    target = spec.parent / "new" / "graph.svg"
    assert main(["graph", str(spec), "--format", "svg", "--output", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    assert ET.fromstring(target.read_text("utf-8")).tag == f"{SVG}svg"
    assert not (spec.parent / ".llmpipe").exists()


def test_the_command_takes_settings(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What --set changes in the spec is drawn."""
    changed = "stages.sft.matrix={axolotl.learning_rate: [3e-4]}"
    assert main(["graph", str(spec), "--format", "dot", "--set", changed]) == 0
    assert "learning_rate=0.0003" in capsys.readouterr().out


def test_an_output_that_cannot_be_written(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a message, not a traceback."""
    assert main(["graph", str(spec), "--output", str(spec / "graph.mmd")]) == 1
    for folder in ("", ".", "/"):
        assert main(["graph", str(spec), "--output", folder]) == 2
    assert "cannot be written" in capsys.readouterr().err
