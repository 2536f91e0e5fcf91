"""What README, docs and examples point to is there: files, folders, and headings within pages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from urllib.parse import unquote

import pytest

from llmpipe.backends.llama_cpp.mixtures import TYPES
from llmpipe.contracts import ArtifactType

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "examples/*/README.md")
    for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"^(```+).*?^\1", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def links(text: str) -> Iterator[str]:
    """Return what a page points to outside of its blocks of code, but for what is on the web."""
    for match in LINK.finditer(FENCE.sub("", text)):
        target = match[1] or match[2]
        if not re.match(r"[a-z]+:", target):
            yield unquote(target)


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them; equal ones are counted."""
    seen: Counter[str] = Counter()
    found = set()
    for match in HEADING.finditer(FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
        name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Relative ones, with their anchors."""
    path = ROOT / page
    text = path.read_text("utf-8")
    broken = []
    for link in links(text):
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    assert broken == []


def test_lists_of_types_are_complete() -> None:
    """The pages name every type of an artifact and of a GGUF, in the order of the code."""
    spec = (ROOT / "docs/reference/spec.md").read_text("utf-8")
    table = spec.partition("Every output has a type")[2].partition("\n\n**")[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == [*get_args(ArtifactType)]
    page = (ROOT / "docs/how-to/choose-a-quantization.md").read_text("utf-8")
    listed = page.partition("From the largest file to the smallest: ")[2].partition(".")[0]
    assert re.findall(r"`(\w+)`", listed) == [*TYPES]


def test_broken_links_are_seen() -> None:
    """Code is passed over, and so is the web; anchors are those of GitHub."""
    page = "# A `b`, c\n## A b c\n[x](a.md#b) ![i](i.png)\n```\n# no\n[y](z)\n```\n[w](https://w.org)\n"
    assert list(links(page)) == ["a.md#b", "i.png"]
    assert anchors(page) == {"a-b-c", "a-b-c-1"}
