"""What is read of a teacher's JSON."""

from __future__ import annotations

from typing import Any

import pytest

from llmpipe.stages.generate.text import read_field


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ('Sure: {"a": "x"} as asked', str, "x"),
        (r'{"a": "\ud83d\ude00"}', str, "\U0001f600"),
        (r'{"a": "\ud83d"}', str, None),
        (r'{"a": ["x", {"y": "\ude00"}]}', list, None),
        (r'{"a": {"\ud83d": 1}}', dict, None),
        ('{"a": "x"}', list, None),
        ('{"a": [' + "[" * 99_999, list, None),
        ("", str, None),
    ],
)
def test_a_field_is_read_where_it_is_text(text: str, kind: type, found: Any) -> None:
    """Half of a surrogate pair could not be written: the stage would fail once all is paid for."""
    assert read_field(text, "a", kind) == found
