"""Templates: whatever a user writes stays text, and what a template misses is an error."""

from __future__ import annotations

import string
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

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
