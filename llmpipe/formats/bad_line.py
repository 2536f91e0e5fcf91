"""A line that is not a row, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llmpipe.formats.row import RowError


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is not a row: its number, its text, and what is wrong with it."""

    line: int
    text: str
    error: RowError


OnBad = Callable[[BadLine], object]
"""Hears of each bad line; reading then goes on."""


def refuse(bad: BadLine) -> None:
    """Stop at the first bad line.

    Raises:
        RowError: always.
    """
    raise bad.error
