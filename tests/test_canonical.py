"""Canonical JSON: equal values give equal keys, other values others, and nothing is pickled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.canonical import canonical_json, digest

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@given(st.dictionaries(st.text(), values))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    """A mapping's digest is that of its content."""
    assert digest(value) == digest(dict(reversed(list(value.items()))))


@given(values)
def test_canonical_json_is_json_and_stable(value: Any) -> None:
    """Reading canonical JSON and writing it again gives the same text."""
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


def test_spellings_of_one_number_are_one() -> None:
    """``1.0`` and ``1`` are one value; ``true`` and ``1`` are not; ``5e-4`` is ``0.0005``."""
    assert digest(1.0) == digest(1)
    assert digest(True) != digest(1)
    assert digest(5e-4) == digest(0.0005)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", {1: 2}])
def test_what_is_not_json_is_refused(value: object) -> None:
    """Nothing is pickled or stringified into a key."""
    with pytest.raises(TypeError):
        canonical_json({"a": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_without_a_value_are_refused(value: float) -> None:
    """Infinity and not-a-number have no JSON."""
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)
