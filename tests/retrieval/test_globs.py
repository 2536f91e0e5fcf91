"""Patterns of document ids: they match like the standard library, in bounded time."""

from __future__ import annotations

import fnmatch
import glob
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmpipe.retrieval.globs import Glob

TEXTS = st.text(alphabet="ab/.-!]\n[*?", max_size=10)
PATTERNS = st.lists(
    st.sampled_from(["a", "b", "ab", "*", "?", "[ab]", "[!a]", "[a-b]", "[]]", "[!]a]", "[", "]", "/", "\n", "[*]", "[b-a]", "[-a]", "[a-]"]),
    max_size=8,
).map("".join)  # fmt: skip


@given(PATTERNS, TEXTS)
@example("*a?*b", "xaabb")
@example("a*a", "a")
def test_it_matches_what_fnmatch_matches(pattern: str, text: str) -> None:
    """Case-sensitively, whatever characters there are."""
    assert Glob(pattern).matches(text) is fnmatch.fnmatchcase(text, pattern)


@given(TEXTS)
def test_an_escaped_text_is_itself(text: str) -> None:
    """It matches itself and nothing else."""
    assert Glob(glob.escape(text)).matches(text)
    assert not Glob(glob.escape(text)).matches(text + "a")


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern", ["*a" * 200_000, "*" * 400_000, "a*" * 2_000 + "b", "?*" * 50_000, "[a-z]*" * 50_000]
)
def test_no_pattern_takes_long(pattern: str) -> None:
    """A regular expression for these takes seconds to compile, or never finishes matching."""
    begun = time.process_time()
    assert not Glob(pattern + "!").matches("a" * 3_000)
    assert time.process_time() - begun < 2
