"""Plain rows are read in one step; what comes out is what the rules for all rows give."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats import Conversation, RowError, read_example, require_usable
from llmpipe.formats.leakage import asked_in
from llmpipe.formats.plain import read_plain
from llmpipe.formats.provenance import PROVENANCE, read_provenance
from llmpipe.formats.records import WrittenFloat, encode
from llmpipe.formats.turn import NAMES, require_question

SPEAKER = st.sampled_from([*NAMES, "Human", "alien", "", None, 1])
TEXT = st.sampled_from(["Why?", "Because.", "ﬁre", "", " \n", None, 7, ["x"], {"text": "x"}])
MORE = st.dictionaries(
    st.sampled_from(["weight", "name", "tool_calls", "extra", "from", "value"]),
    st.sampled_from([None, "", 0, 1, "x"]),
    max_size=1,
)


def turns(speaker: str, text: str) -> st.SearchStrategy[Any]:
    """Turns of one pair of keys, most of them plain."""
    plain = st.fixed_dictionaries({speaker: st.sampled_from(list(NAMES)), text: st.text()})
    odd = st.builds(
        lambda turn, more: {**turn, **more},
        st.fixed_dictionaries({}, optional={speaker: SPEAKER, text: TEXT}),
        MORE,
    )
    asks = st.fixed_dictionaries({speaker: st.just("user"), text: st.just("Why so?")})
    says = st.fixed_dictionaries({speaker: st.just("assistant"), text: st.just("So.")})
    some = st.lists(plain | odd | st.sampled_from([None, "ab", 1]), max_size=2)
    return st.builds(lambda *parts: [turn for part in parts for turn in part],
                     some, st.tuples(asks) | st.just(()), some, st.tuples(says) | st.just(()))  # fmt: skip


CHAT = st.one_of(
    turns("role", "content"), turns("from", "value"), st.sampled_from([None, "", "[]", {}, 3])
)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "messages": CHAT,
        "conversations": CHAT,
        "id": st.sampled_from(["", None, 0, "a", WrittenFloat("1.10")]),
        "system": st.sampled_from(["", "Be kind."]),
        "tools": st.sampled_from([[], [{"name": "f"}]]),
        "chosen": st.just("a"),
        "rejected": st.just("b"),
        "prompt": st.just("Why?"),
        PROVENANCE: st.sampled_from(["", {"id": "a", "method": "m"}]),
    },
)


def by_all_rules(row: dict[str, Any]) -> tuple[bytes, list[str], tuple[str, ...]] | None:
    """Return what the rules for all rows keep of a row, None if they reject it."""
    try:
        example, left = read_example(row)
        require_usable(example)
        assert isinstance(example, Conversation)
        require_question(example.turns, "messages")
    except RowError:
        return None
    made = read_provenance(row)
    text = encode({**example.write(), PROVENANCE: made.column()})
    return text, asked_in(example), tuple(left)


@given(ROW)
def test_a_plain_row_is_what_all_rules_make_of_it(row: dict[str, Any]) -> None:
    """Text, question, id and left-behind columns are equal for every row that counts as plain."""
    plain = read_plain(row)
    if plain is not None:
        assert (encode(plain.row), plain.asked, plain.left) == by_all_rules(row)


@given(st.sampled_from(["messages", "conversations"]), st.sampled_from(["id", "score"]), st.text())
def test_common_rows_are_plain(column: str, other: str, answer: str) -> None:
    """Rows of both spellings, with a column that is left behind, are read in one step."""
    speaker, text = ("role", "content") if column == "messages" else ("from", "value")
    asked, said = {speaker: "user", text: "Why?"}, {speaker: "assistant", text: f"So {answer}"}
    plain = read_plain({other: 1, column: [asked, said]})
    assert plain is not None
    assert (plain.asked, plain.left) == (["Why?"], (other,))
