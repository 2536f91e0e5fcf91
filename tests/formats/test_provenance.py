"""Which rows count as made by a model: those with the column that `generate` writes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats.provenance import is_unclear, provenance_column, source_digest

SEED = "0123456789abcdef" * 4
OURS = provenance_column(SEED, ("deepen",), {"engine": "llama.cpp", "model": "m"})


@pytest.mark.parametrize(
    "value", [OURS, json.dumps(OURS), {**OURS, "reviewed": True}, {"seed": SEED}]
)
def test_what_generate_writes_is_recognised(value):
    """As an object, as its JSON text in a table, and with columns added by a person."""
    assert source_digest({"provenance": value}) == SEED
    assert not is_unclear({"provenance": value})


@pytest.mark.parametrize(
    "value", ["wiki", "", " {", "{]", None, 7, 1.5, True, [], ["seed"], {}, {"source": "wiki"}]
)
def test_a_column_of_the_users_own(value):
    """A column of that name with other content says nothing about a model."""
    assert source_digest({"provenance": value}) is None
    assert not is_unclear({"provenance": value})


@pytest.mark.parametrize(
    "value", [{"seed": "x"}, {"seed": SEED.upper()}, {"seed": 42}, {"teacher": "gpt"}]
)
def test_what_resembles_it_is_unclear(value):
    """An object with one of our fields and no digest is no generated row, and is reported."""
    assert source_digest({"provenance": value}) is None
    assert is_unclear({"provenance": value})
    assert is_unclear({"provenance": json.dumps(value)})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("seed"), inner),
)


@given(JSON)
def test_any_value_can_be_asked(value):
    """Whatever stands in the column, it is one of three: ours, unclear, or the user's."""
    row = {"provenance": value}
    assert source_digest(row) is None
    assert is_unclear(row) in (True, False)
