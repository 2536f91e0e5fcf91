"""The reference page of the Python API says what the code says."""

from __future__ import annotations

from python_api import PAGE, page


def test_the_page_is_fresh() -> None:
    """``make python-api`` writes it from signatures and docstrings."""
    assert PAGE.read_text("utf-8") == page(), "make python-api"
