"""Which row a row is, and which rows it was made from."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats import RowError
from llmpipe.formats.provenance import (
    PROVENANCE,
    Provenance,
    provenance_column,
    read_provenance,
    row_id,
)
from llmpipe.formats.records import WrittenFloat

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
ROW = st.dictionaries(st.text(), JSON)


@pytest.mark.slow
@given(ROW, st.randoms())
def test_a_row_keeps_its_id_through_all_stages(row: dict[str, Any], random: Any) -> None:
    """The order of columns does not matter, and what a stage carries on is what counts."""
    names = list(row)
    random.shuffle(names)
    own = row_id({name: row[name] for name in names})
    assert own == row_id(row)
    assert row_id({**row, "one more": 1}) != own
    first = read_provenance(row)
    assert first == Provenance(own)
    carried = {"messages": [], PROVENANCE: first.column()}
    assert read_provenance(carried) == first
    assert read_provenance({PROVENANCE: json.dumps(first.column())}) == first


def test_the_spelling_of_a_fraction_does_not_matter() -> None:
    """`generate` and `format` read fractions in different ways."""
    assert row_id({"a": WrittenFloat("1.10")}) == row_id({"a": 1.1})


def test_a_generated_row_descends_from_all_before_it() -> None:
    """Its parents are those that it was made from, and theirs."""
    seed = read_provenance({"instruction": "q"})
    column = provenance_column({"text": "a"}, [seed], method="evol-instruct", rounds=2)
    made = read_provenance({"text": "a", PROVENANCE: column})
    assert (made.parents, made.generated) == ((seed.id,), True)
    assert made.details == {"method": "evol-instruct", "rounds": 2}
    again = provenance_column({"text": "b"}, [made, seed], method="self-instruct")
    assert again["parents"] == [made.id, seed.id]
    assert not seed.generated


@pytest.mark.parametrize("value", ["wiki", 7, [], {"parents": []}, {"id": "x", "parents": [1]}])
def test_a_column_that_llmpipe_did_not_write(value: Any) -> None:
    """It is refused, with the name of the column."""
    with pytest.raises(RowError, match=PROVENANCE):
        read_provenance({PROVENANCE: value})
