"""What people have: each public shape of a row, and the example that it becomes."""

from __future__ import annotations

from typing import Any

import pytest

from llmpipe.formats import (
    Conversation,
    Labeled,
    Prompt,
    RowError,
    Text,
    Turn,
    UnusableRowError,
    detect,
    read_conversation,
    read_example,
    write_example,
)
from llmpipe.formats.example import require_usable
from llmpipe.formats.labeled import read_labeled
from llmpipe.formats.mapping import ColumnMap

ASKED = [Turn("user", "q"), Turn("assistant", "a")]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": null}'}}
Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [Q, A]},
        {"conversations": [Q, A]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"messages": [{"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}]},
        {"messages": [{"role": "User", "content": "q"}, {"role": "ASSISTANT", "content": "a"}]},
        {"conversations": [{"from": "Human", "value": "q"}, {"from": "ChatGPT", "value": "a"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "bing", "value": "a"}]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "bard", "value": "a"}]},
        {"messages": '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]'},
        {"instruction": "q", "input": None, "output": "a"},
        {"instruction": "q", "output": "a", "history": []},
        {"instruction": "q", "context": "", "response": "a"},
        {"question": "q", "context": "", "answers": {"text": ["a"]}},
        {"prompt": "q", "completion": "a"},
        {"prompt": [Q], "completion": [A]},
        {"prompt": [Q], "completion": '[{"role": "assistant", "content": "a"}]'},
    ],
    ids=str,
)
@pytest.mark.parametrize("system", [None, "", " ", "s"])
def test_a_question_and_its_answer(row: dict[str, Any], system: str | None) -> None:
    """In every shape, under any speaker's name; a system column opens the conversation."""
    opening = [Turn("system", "s")] if system == "s" else []
    reading = read_example({**row, "system": system})
    assert reading.example == Conversation([*opening, *ASKED])
    assert not reading.left
    assert read_conversation(row) == Conversation(ASKED)


@pytest.mark.parametrize(
    ("row", "left"),
    [
        (
            {"messages": [Q, A], "prompt": "q", "prompt_id": "7", "note": ""},
            ("prompt", "prompt_id"),
        ),
        ({"instruction": "q", "context": "c", "response": "a", "category": "x"}, ("category",)),
        (
            {
                "question": "q",
                "context": "c",
                "answers": {"text": ["a", "b"], "answer_start": [3, 4]},
                "title": "t",
            },
            ("title", "answers.answer_start", "answers after the first"),
        ),
        ({"text": "t", "url": "u", "meta": {}}, ("url",)),
        ({"prompt": "q", "completion": "a", "label": True, "id": 1}, ("id",)),
    ],
    ids=str,
)
def test_what_is_left_behind_is_named(row: dict[str, Any], left: tuple[str, ...]) -> None:
    """Columns and keys without a place in the example; those that say nothing are not counted."""
    assert tuple(read_example(row).left) == left


def test_passages_and_earlier_turns_stand_before_the_answer() -> None:
    """Alpaca's input and history, Dolly's context and SQuAD's."""
    history = [["q1", "a1"], ["q2", "a2"]]
    row = {"instruction": "q", "input": "i", "output": 3, "history": history}
    texts = [turn.text for turn in read_conversation(row).turns]
    assert texts == ["q1", "a1", "q2", "a2", "q\n\ni", "3"]
    row = {"instruction": " ", "input": "only this", "output": "a"}
    assert read_conversation(row).turns[0].text == "only this"
    row = {"instruction": "q", "context": "c", "response": "a"}
    assert read_conversation(row).turns[0].text == "q\n\nc"
    row = {"question": "q", "context": "c", "answers": {"text": ["a"], "answer_start": [0]}}
    assert read_conversation(row).turns[0].text == "c\n\nq"
    with pytest.raises(UnusableRowError, match="list of answers is empty"):
        read_example({**row, "answers": {"text": [], "answer_start": []}})


def test_a_turn_keeps_all_that_it_has() -> None:
    """Tool calls, ids, names, reasoning, weights, and keys that only a template may know."""
    turns = [
        {"role": "user", "content": "q", "name": "Ana"},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
        {"role": "assistant", "content": [{"type": "text", "text": "three", "train": False}]},
        {"role": "assistant", "content": "x", "reasoning_content": "r", "mood": "glad"},
    ]
    example = read_example({"messages": turns, "tools": '[{"name": "f"}]'}).example
    assert isinstance(example, Conversation)
    assert example.turns[1].trained is False
    assert example.turns[3].text == "three"
    assert example.write() == {"messages": turns, "tools": [{"name": "f"}]}


def test_sharegpt_calls_tools_by_speakers() -> None:
    """`function_call` is the assistant that calls, `observation` what the tool answers."""
    call = {"name": "f", "arguments": {"x": 1}}
    row = {
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
            {"from": "observation", "value": "3"},
            {"from": "gpt", "value": "a"},
        ]
    }
    turns = read_conversation(row).turns
    assert [turn.role for turn in turns] == ["user", "assistant", "tool", "assistant"]
    assert turns[1].tool_calls == [{"type": "function", "function": call}]
    assert turns[1].content is None
    with pytest.raises(RowError, match="the function_call is not JSON"):
        read_example({"conversations": [{"from": "function_call", "value": "f(x)"}]})


@pytest.mark.parametrize(
    ("keys", "trained"),
    [
        ({"weight": 0}, False),
        ({"weight": 1.0}, True),
        ({"train": False}, False),
        ({"training": True, "weight": 1}, True),
        ({"weight": None}, None),
        ({}, None),
    ],
)
def test_whether_a_turn_is_trained_on(keys: dict[str, Any], trained: bool | None) -> None:
    """By the keys that OpenAI and Axolotl use."""
    turn = read_conversation({"messages": [Q, {**A, **keys}]}).turns[1]
    assert turn == Turn("assistant", "a", trained=trained)


@pytest.mark.parametrize("label", [True, 1, "true", "True", "1"])
@pytest.mark.parametrize("prompt", [{"prompt": "q"}, {"prompt": [Q]}, {"instruction": "q"}])
def test_labeled_answers(prompt: dict[str, Any], label: Any) -> None:
    """For KTO: a prompt, a completion, and whether it is good, in words or numbers."""
    example = read_example({**prompt, "completion": "a", "label": label}).example
    assert example == Labeled([ASKED[0]], ASKED[1], True)
    with pytest.raises(RowError, match="'label' must be true or false"):
        read_example({**prompt, "completion": "a", "label": "good"})


@pytest.mark.parametrize("column", ["messages", "conversations", "prompt"])
def test_a_labeled_conversation(column: str) -> None:
    """Its last turn is the completion, which a column of its own may repeat."""
    expected = Labeled([ASKED[0]], ASKED[1], False)
    row = {column: [Q, A], "label": False}
    assert read_labeled(row)[0] == expected
    assert read_labeled({**row, "completion": "a"})[0] == expected
    assert read_labeled({column: [Q], "completion": "a", "label": False})[0] == expected
    with pytest.raises(RowError, match="an answer that is not the one to train"):
        read_labeled({**row, "completion": "b"})
    with pytest.raises(RowError, match="completion"):
        read_labeled({column: [Q], "label": False})


def test_prompts_keep_what_a_reward_function_needs() -> None:
    """For GRPO: all columns beside the prompt."""
    reading = read_example({"prompt": "q", "answer": "4", "system": "s"})
    assert reading.example == Prompt([Turn("system", "s"), ASKED[0]], {"answer": "4"})
    assert not reading.left


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"messages": []}, "messages"),
        ({"conversations": [], "chosen": "a"}, "sharegpt"),
        ({"chosen": "a", "rejected": "b", "messages": []}, "preference"),
        ({"text": "t", "label": 1}, "completion"),
        ({"question": "q", "answer": "a"}, None),
        ({"text": 3}, None),
        ({}, None),
    ],
    ids=str,
)
def test_formats_are_told_by_columns(row: dict[str, Any], name: str | None) -> None:
    """The case of an example by the columns that only it has."""
    assert detect(row) == name


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": []}, "'messages' must hold a list of turns, not an empty list"),
        ({"messages": {"a": 1}}, "'messages' must hold a list of turns, not an object"),
        ({"messages": ["q"]}, r"messages\[0\] must be an object .* not a text"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\] needs the text 'content'"),
        ({"messages": [{"from": "user"}]}, "needs the text 'value'; it has 'from'"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\]: 'content' .* null"),
        ({"messages": [{"role": "user", "content": 4}]}, r"messages\[0\]: 'content' .* a number"),
        ({"messages": [{"role": "user", "content": []}]}, "not an empty list"),
        ({"messages": [{"content": "q"}]}, r"messages\[0\] needs the text 'role'"),
        ({"messages": [{"role": 3, "content": "q"}]}, r"messages\[0\] needs the text 'role'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "must hold text, not a list of image_url",
        ),
        ({"messages": [{**Q, "name": 3}]}, "'name' must hold text, not a number"),
        ({"messages": [{"role": "narrator", "content": "q"}]}, "unknown role 'narrator'"),
        ({"messages": [{**A, "weight": 0.5}]}, "'weight' must be 0 or 1"),
        ({"messages": [{**A, "weight": 1, "train": False}]}, "contradict each other"),
        ({"messages": "[no"}, "column 'messages' is not JSON"),
        ({"messages": [Q, A], "tools": "no"}, "'tools' is not JSON"),
        ({"messages": [Q, A], "tools": {"a": 1}}, "list of objects"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]}]},
            r"messages\[0\]\.tool_calls\[0\]: the text 'arguments' is not JSON",
        ),
        ({"messages": [{"role": "system", "content": "s"}, Q, A], "system": "t"}, "two different"),
        ({"instruction": "q", "output": None}, "column 'output' must hold text, not null"),
        ({"instruction": ["q"], "output": "a"}, "column 'instruction' must hold text"),
        ({"instruction": "q", "output": "a", "history": "x"}, "'history' must hold a list"),
        ({"prompt": "q", "completion": [Q]}, "completion must hold the assistant's turn"),
        ({"question": "a", "answer": "b"}, "no known format; it has 'question', 'answer'"),
        ({}, "it has no columns"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_named(row: dict[str, Any], told: str) -> None:
    """By its column, the turn's place and the key; with a reason to count it under."""
    with pytest.raises(RowError, match=told) as caught:
        read_example(row)
    assert caught.value.reason


@pytest.mark.parametrize(("value", "found"), [(3, "a number"), (None, "null"), ([1], "a list")])
def test_a_text_of_another_type_is_told_by_its_type(value: object, found: str) -> None:
    """The column exists, so no other name is suggested."""
    with pytest.raises(RowError, match=f"column 'text' must hold text, not {found}") as caught:
        read_example({"text": value})
    assert "did you mean" not in (caught.value.hint or "")


def test_a_known_column_is_not_suggested_for_itself() -> None:
    """`chosen` without `rejected` is in no format, but it is not misspelled."""
    with pytest.raises(RowError, match="in no known format") as caught:
        read_example({"chosen": "a"})
    assert "did you mean" not in (caught.value.hint or "")


def test_misspelled_names_are_suggested() -> None:
    """`mesages` is close enough to `messages` to say so, and `humann` to `human`."""
    with pytest.raises(RowError) as caught:
        read_example({"mesages": []})
    assert "did you mean 'messages'?" in (caught.value.hint or "")
    with pytest.raises(RowError) as caught:
        read_example({"conversations": [{"from": "humann", "value": "Hi"}]})
    assert "conversations[0]: unknown from 'humann'" in caught.value.message
    assert caught.value.hint == "did you mean 'human'?"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"instruction": " ", "output": "b"}, "empty"),
        ({"text": ""}, "empty"),
        ({"messages": [Q]}, "no answer"),
        ({"messages": [Q, {**A, "content": " "}]}, "empty"),
        ({"prompt": "q", "completion": "", "label": 0}, "empty"),
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "no preference"),
        ({"prompt": " "}, "empty"),
    ],
)
def test_useless_rows_have_a_reason(row: dict[str, Any], reason: str) -> None:
    """A blank text or a question without an answer is not a mistake of shape: it is counted."""
    with pytest.raises(UnusableRowError) as caught:
        require_usable(read_example(row).example)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("columns", "row", "example"),
    [
        (
            ColumnMap(user="q", assistant="a", system="s", input="i", history="h", reasoning="r"),
            {"q": "q", "a": "a", "s": "", "i": "i", "h": [["q1", "a1"]], "r": "why"},
            Conversation(
                [
                    Turn("user", "q1"),
                    Turn("assistant", "a1"),
                    Turn("user", "q\n\ni"),
                    Turn("assistant", "a", reasoning_content="why"),
                ]
            ),
        ),
        (ColumnMap(messages="dialog"), {"dialog": [Q, A]}, Conversation(ASKED)),
        (ColumnMap(text="t"), {"t": "x"}, Text("x")),
        (
            ColumnMap(prompt="q", completion="a", label="ok"),
            {"q": "q", "a": "a", "ok": 0},
            Labeled([ASKED[0]], ASKED[1], False),
        ),
        (ColumnMap(prompt="q", keep=("gold",)), {"q": "q", "gold": 4},
         Prompt([ASKED[0]], {"gold": 4})),
    ],
    ids=["pair", "messages", "text", "labeled", "prompt"],
)  # fmt: skip
def test_a_map_names_any_part(columns: ColumnMap, row: dict[str, Any], example: Any) -> None:
    """Whatever the columns are called; those that are not named are left behind."""
    assert columns.problem() is None
    reading = read_example({**row, "messages2": 1, "empty": None}, columns)
    assert (reading.example, tuple(reading.left)) == (example, ("messages2",))


def test_a_column_that_a_map_names_and_a_row_lacks() -> None:
    """It is named, and the closest one is suggested."""
    with pytest.raises(RowError) as caught:
        read_example({"question": "Why?", "a": "So."}, ColumnMap(user="questio", assistant="a"))
    assert caught.value.message == "no column 'questio'; the row has 'question', 'a'"
    assert caught.value.hint == "did you mean 'question'?"


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (ColumnMap(user="q"), "name both"),
        (ColumnMap(), "name both"),
        (ColumnMap(text="t", user="q"), "cannot stand beside `user`"),
        (ColumnMap(messages="m", user="q", assistant="a"), "`messages` has no place"),
        (ColumnMap(chosen="c", rejected="r", keep=("x",)), "`keep` has no place"),
        (ColumnMap(text="t"), None),
        (ColumnMap(user="q", assistant="a"), None),
        (ColumnMap(chosen="c", rejected="r"), None),
    ],
)
def test_column_maps_must_make_sense(columns: ColumnMap, told: str | None) -> None:
    """A map names parts that make one example together."""
    problem = columns.problem()
    assert problem is None if told is None else told in (problem or "")


@pytest.mark.parametrize(
    ("row", "to", "told"),
    [
        ({"messages": [Q, A, A]}, "alpaca", "each with its answer, not user, assistant, assistant"),
        ({"messages": [Q, A], "tools": [{"name": "f"}]}, "alpaca", "no place for tools"),
        ({"messages": [Q, {**A, "tool_calls": [CALL]}]}, "completion", "no place for tools"),
        ({"text": "Once."}, "messages", "raw text cannot become a row of the format messages"),
        ({"messages": [A]}, "messages", "without a user turn"),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "messages", "a pair of answers cannot"),
        ({"prompt": "q"}, "messages", "a prompt cannot become"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(row: dict[str, Any], to: Any, told: str) -> None:
    """Each with the format that can."""
    with pytest.raises(RowError, match=told) as caught:
        write_example(read_example(row).example, to)
    assert "to: " in (caught.value.hint or "")


def test_what_a_format_has_no_place_for_is_named() -> None:
    """Names, weights and reasoning stand in messages and ShareGPT, and in no Alpaca row."""
    turns = [{**Q, "name": "Ana"}, {**A, "weight": 1, "reasoning_content": "r", "mood": "glad"}]
    example = read_example({"messages": turns}).example
    for to, lost in (("messages", []), ("sharegpt", []), ("alpaca", True), ("completion", True)):
        expected = ["name", "reasoning_content", "weight", "mood"] if lost else []
        assert list(write_example(example, to).lost) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [r'"\ud800"', "NaN", "-Infinity", "1e999"])
def test_json_in_a_column_holds_only_what_a_row_can(value: str) -> None:
    """Half of a surrogate pair cannot be written, and an infinite number would become null."""
    text = f'[{{"role": "user", "content": "q"}}, {{"role": "assistant", "content": "a", "x": {value}}}]'
    with pytest.raises(RowError, match="column 'messages' is not"):
        read_example({"messages": text})
