"""How ``plan`` says an estimate."""

from __future__ import annotations

import pytest

from llmpipe.api.plan import about


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.02, "under 1 s"),
        (12.4, "about 12 s"),
        (59.4, "about 59 s"),
        (80, "about 1 min"),
        (170, "about 3 min"),
        (3580, "about 1 h 0 min"),
        (9000, "about 2 h 30 min"),
    ],
)
def test_an_estimate_is_no_more_exact_than_it_can_be(seconds: float, text: str) -> None:
    """Seconds, then minutes, then hours and minutes."""
    assert about(seconds) == text
