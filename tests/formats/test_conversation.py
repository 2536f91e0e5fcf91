"""Whole turns, as training sees them: what is kept, what is accepted, what is named."""

from __future__ import annotations

from typing import Any

import pytest

from llmpipe.formats import RowError
from llmpipe.formats.conversation import read_conversation

CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": null}'}}


def test_a_turn_keeps_all_its_keys() -> None:
    """Tool calls, names and training marks are for the chat template and Axolotl to read."""
    turns = [
        {"role": "user", "content": "q", "name": "Ana"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
        {"role": "assistant", "content": [{"type": "text", "text": "three", "train": False}]},
    ]
    read = read_conversation({"messages": turns, "tools": '[{"name": "f"}]'})
    assert read.messages == turns
    assert read.tools == [{"name": "f"}]


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}]},
        {"messages": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]},
        {"instruction": "q", "input": None, "output": "a"},
    ],
)
@pytest.mark.parametrize("system", [None, "", "s"])
def test_all_formats_become_turns(row: dict[str, Any], system: str | None) -> None:
    """A system column opens the conversation, whatever the format."""
    opening = [{"role": "system", "content": "s"}] if system else []
    asked = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert read_conversation({**row, "system": system}).messages == opening + asked


def test_speakers_stay_as_written_where_they_are_mapped_later() -> None:
    """Axolotl's own ``roles`` may give ``human`` another role."""
    row = {"conversations": [{"from": "human", "value": "q"}, {"from": "narrator", "value": "a"}]}
    names = [turn["role"] for turn in read_conversation(row, rename=False).messages]
    assert names == ["human", "narrator"]
    assert [t["role"] for t in read_conversation(row).messages] == ["user", "narrator"]


def test_blank_turns_are_read() -> None:
    """What an empty answer means is for the caller to say."""
    assert read_conversation({"instruction": "", "output": " "}).messages[1]["content"] == " "


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": []}, "'messages' must hold a list of turns, not an empty list"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\]: 'content' .* null"),
        ({"messages": [{"role": "user", "content": 4}]}, r"messages\[0\]: 'content' .* a number"),
        ({"messages": [{"role": "user", "content": []}]}, "not an empty list"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\] needs the text 'content'"),
        ({"messages": [{"content": "q"}]}, r"messages\[0\] needs the text 'role'"),
        ({"messages": [{"role": 3, "content": "q"}]}, r"messages\[0\] needs the text 'role'"),
        ({"messages": ["q"]}, r"messages\[0\] must be an object .* not a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "must hold text"),
        ({"conversations": [{"from": "human"}]}, "needs the text 'value'; it has 'from'"),
        ({"instruction": "q", "output": None}, "column 'output' must hold text, not null"),
        ({"instruction": ["q"], "output": "a"}, "column 'instruction' must hold text"),
        ({"messages": [{"role": "user", "content": "q"}], "tools": "no"}, "'tools' is not JSON"),
        ({"messages": [{"role": "user", "content": "q"}], "tools": {"a": 1}}, "list of objects"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]},
            r"messages\[0\]\.tool_calls\[0\]: the text 'arguments' is not JSON",
        ),
        (
            {"messages": [{"role": "system", "content": "s"}], "system": "t"},
            "two different system texts",
        ),
    ],
)
def test_what_cannot_be_read_is_named(row: dict[str, Any], message: str) -> None:
    """By its column, the turn's place and the key."""
    with pytest.raises(RowError, match=message):
        read_conversation(row)
