"""Templates: whatever a user writes stays text, and what a template misses is an error."""

from __future__ import annotations

import importlib
import string
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup

from llmpipe.templates import environment

TEMPLATES = environment("llmpipe.report")
ELEMENT = TEMPLATES.from_string('<t a="{{ text }}">{{ text }}</t>')


@given(st.text(alphabet=string.printable + "\ud800\u202e\x85äα"))
def test_any_text_stays_text(text: str) -> None:
    """It is safe between tags and in quotes; a browser reads it back, and so does an XML parser."""
    read: list[str] = []
    parser = HTMLParser()
    parser.handle_data = read.append  # type: ignore[method-assign]
    written = ELEMENT.render(text=text)
    parser.feed(written)
    parser.close()
    assert written.count("<") == 2
    assert "".join(read) == "".join(
        letter if letter in "\t\n\r" or (letter >= " " and letter != "\ud800") else "\ufffd"
        for letter in text
    )
    assert ET.fromstring(written).get("a") is not None


def test_markup_is_not_escaped_again() -> None:
    """What is markup already stands as it is."""
    assert ELEMENT.render(text=Markup("&lt;")) == '<t a="&lt;">&lt;</t>'


def test_a_missing_name_is_an_error() -> None:
    """A page never silently leaves out what its template asks for."""
    with pytest.raises(UndefinedError, match="'txet' is undefined"):
        TEMPLATES.from_string("{{ txet }}").render(text="x")


def test_coordinates_are_short() -> None:
    """Six digits are enough for a drawing."""
    assert TEMPLATES.from_string("{{ 1.23456789|coordinate }}").render() == "1.23457"


def test_compiled_templates_follow_their_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template is compiled once; a changed source or a damaged file is compiled again."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.syspath_prepend(tmp_path)
    page = tmp_path / "drawn" / "templates" / "page.html"
    page.parent.mkdir(parents=True)
    (tmp_path / "drawn" / "__init__.py").touch()
    importlib.invalidate_caches()

    def rendered() -> str:
        return environment("drawn").get_template("page.html").render()

    page.write_text("first")
    assert rendered() == "first"
    (compiled,) = (page.parent / "__pycache__").iterdir()
    first = compiled.stat()
    assert rendered() == "first"
    assert compiled.stat().st_mtime_ns == first.st_mtime_ns
    page.write_text("other")
    assert rendered() == "other"
    assert compiled.stat().st_ino != first.st_ino
    for damaged in (b"", compiled.read_bytes()[:-9], b"not compiled"):
        compiled.write_bytes(damaged)
        assert rendered() == "other"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    compiled.unlink()
    assert rendered() == "other"
    assert not compiled.exists()
