"""Row formats: what each reads and writes, and what it says about rows that do not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats import RowError, detect, from_chat, to_chat
from llmpipe.formats.conversation import read_conversation
from llmpipe.formats.mapping import ColumnMap, read_chat
from llmpipe.formats.message import UnusableRowError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t.strip())
TURN = st.tuples(TEXT, TEXT)


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, str]]:
    """An optional system message, then questions and answers in turn."""
    system = draw(st.none() | TEXT)
    chat = [{"role": "system", "content": system}] if system else []
    for question, answer in draw(st.lists(TURN, min_size=1, max_size=3)):
        chat += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return chat


@given(conversations())
@pytest.mark.parametrize("name", ["messages", "sharegpt"])
def test_chat_formats_lose_nothing(name, chat):
    """Any conversation goes through `messages` and `sharegpt` and back unchanged."""
    row = from_chat(chat, name)
    assert detect(row) == name
    assert to_chat(row, name) == chat


@given(st.none() | TEXT, TURN)
def test_alpaca_loses_no_single_turn(system, turn):
    """One question and its answer go through `alpaca` and back, the system message too."""
    chat = [{"role": "system", "content": system}] if system else []
    chat += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    row = from_chat(chat, "alpaca")
    assert detect(row) == "alpaca"
    assert to_chat(row, "alpaca") == chat


def test_alpaca_input_follows_the_instruction():
    """The input stands below the instruction, after a blank line."""
    chat = to_chat({"instruction": "Add", "input": "1 and 2", "output": 3}, "alpaca")
    assert chat == [
        {"role": "user", "content": "Add\n\n1 and 2"},
        {"role": "assistant", "content": "3"},
    ]


def test_alpaca_refuses_several_turns():
    """A conversation does not fit into an Alpaca row, and the message says what fits it."""
    chat = [{"role": role, "content": "x"} for role in ("user", "assistant", "user", "assistant")]
    with pytest.raises(RowError) as caught:
        from_chat(chat, "alpaca")
    assert "not 4 turns" in caught.value.message
    assert "to: messages" in caught.value.hint


def test_raw_text_is_no_conversation():
    """Raw text stays raw text; made into messages it would teach an answer to nothing."""
    chat = to_chat({"text": "Once."}, "completion")
    assert from_chat(chat, "completion") == {"text": "Once."}
    with pytest.raises(RowError, match="without a user turn"):
        from_chat(chat, "messages")


def test_sharegpt_speakers_have_several_names():
    """`gpt`, `chatgpt` and `model` answer; a `system` column beside the turns is a turn."""
    row = {
        "system": "Be brief.",
        "conversations": [{"from": "human", "value": "Hi"}, {"from": "chatgpt", "value": "Hello"}],
    }
    assert [turn["role"] for turn in to_chat(row, "sharegpt")] == ["system", "user", "assistant"]


def test_unknown_speaker_is_named():
    """A speaker that nobody knows is an error with its place and the closest known one."""
    with pytest.raises(RowError) as caught:
        to_chat({"conversations": [{"from": "humann", "value": "Hi"}]}, "sharegpt")
    assert "conversations[0]: unknown from 'humann'" in caught.value.message
    assert caught.value.hint == "did you mean 'human'?"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"instruction": "q", "output": "a"},
    ],
    ids=lambda row: next(iter(row)),
)
def test_the_system_column_is_read_as_training_reads_it(row):
    """In every format; beside another system text it is refused."""
    chat = read_chat({**row, "system": "Be brief."})
    assert chat[0] == {"role": "system", "content": "Be brief."}
    assert chat == read_conversation({**row, "system": "Be brief."}).messages
    assert read_chat({**row, "system": " "}) == read_chat({**row, "system": None}) == chat[1:]
    for column, speaker, text in (
        ("messages", "role", "content"),
        ("conversations", "from", "value"),
    ):
        if column in row:
            opened = {column: [{speaker: "system", text: "Be brief."}, *row[column]]}
            assert read_chat({**opened, "system": "Be brief."}) == chat
            with pytest.raises(RowError, match="two different system texts"):
                read_chat({**opened, "system": "Be kind."})


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": []}, "must hold a list of turns"),
        ({"messages": ["hi"]}, "messages[0] must be an object"),
        ({"messages": [{"role": "user"}]}, "needs the text 'content'"),
        ({"messages": [{"role": "user", "content": None}]}, "needs the text 'content'"),
        ({"instruction": ["a"], "output": "b"}, "'instruction' must hold text, not a list"),
        ({"question": "a", "answer": "b"}, "no known format; it has 'question', 'answer'"),
        ({}, "it has no columns"),
    ],
)
def test_bad_rows_are_explained(row, told):
    """Each malformed row gives one message that says what is wrong with it."""
    with pytest.raises(RowError) as caught:
        read_chat(row)
    assert told in caught.value.message


def test_misspelt_column_of_a_format_is_suggested():
    """`mesages` is close enough to `messages` to say so."""
    with pytest.raises(RowError) as caught:
        read_chat({"mesages": []})
    assert "did you mean 'messages'?" in caught.value.hint


def test_mapped_columns():
    """Named columns become the turns; an empty system column gives none."""
    columns = ColumnMap(user="q", assistant="a", system="s")
    row = {"q": "Why?", "a": "So.", "s": ""}
    assert [turn["role"] for turn in read_chat(row, columns)] == ["user", "assistant"]
    with pytest.raises(RowError) as caught:
        read_chat({"question": "Why?", "a": "So."}, ColumnMap(user="questio", assistant="a"))
    assert caught.value.message == "no column 'questio'; the row has 'question', 'a'"
    assert caught.value.hint == "did you mean 'question'?"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": " ", "output": "b"}, "empty"),
        ({"text": ""}, "empty"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no answer"),
    ],
)
def test_useless_rows_have_a_reason(row, reason):
    """A blank text or a question without an answer is no mistake of shape: it is countable."""
    with pytest.raises(UnusableRowError) as caught:
        read_chat(row)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (ColumnMap(user="q"), "name both"),
        (ColumnMap(), "name both"),
        (ColumnMap(text="t", user="q"), "cannot stand beside `user`"),
        (ColumnMap(text="t"), None),
        (ColumnMap(user="q", assistant="a"), None),
    ],
)
def test_column_maps_must_make_sense(columns, told):
    """A map names question and answer, or text."""
    problem = columns.problem()
    assert problem is None if told is None else told in problem
