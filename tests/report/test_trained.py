"""Rows in the report, with what is trained marked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from llmpipe.report.trained import marked


def test_what_is_trained_is_marked() -> None:
    """Text stays text, whatever it holds; a cut row may lack its last bracket."""
    assert str(marked("<b>⟦a & b⟧ c")) == "&lt;b&gt;<mark>⟦a &amp; b⟧</mark> c"
    assert str(marked("q ⟦cut …")) == "q <mark>⟦cut …</mark>"


@given(st.text(alphabet="⟦⟧<a&"))
def test_marks_are_closed(text: str) -> None:
    """Rows may hold the brackets themselves."""
    html = marked(text).encode().decode()
    assert html.count("<mark>") == html.count("</mark>")
    assert Markup(html.replace("<mark>", "").replace("</mark>", "")).unescape() == text
