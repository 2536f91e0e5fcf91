"""Preference rows as public sets write them: where the question is found, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats import Preference, RowError, UnusableRowError, read_example
from llmpipe.formats.turn import write_turn

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t.strip())


def read_preference(row: dict[str, Any]) -> Preference:
    """The row, which is read as a preference."""
    example = read_example(row).example
    assert isinstance(example, Preference)
    return example


def prompt(pair: Preference) -> list[dict[str, Any]]:
    """The turns of the prompt as objects."""
    return [write_turn(turn) for turn in pair.turns]


def written(pair: Preference) -> tuple[Any, Any, Any]:
    """The prompt and both answers as objects."""
    return prompt(pair), write_turn(pair.chosen), write_turn(pair.rejected)


USER = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "a"}
BAD = {"role": "assistant", "content": "b"}
SYSTEM = {"role": "system", "content": "s"}


@pytest.mark.parametrize(
    "question",
    [
        {"prompt": "q"},
        {"question": "q"},
        {"instruction": "q"},
        {"input": "q"},
        {"prompt": [USER]},
        {"messages": [USER]},
        {"conversations": [{"from": "human", "value": "q"}]},
        {"prompt": "q", "messages": [USER, GOOD]},  # UltraFeedback: messages is the chosen one
        {"prompt": "q", "instruction": "q", "input": ""},
        {"prompt": "q", "messages": None, "input": None},
    ],
    ids=lambda question: "+".join(question),
)
@pytest.mark.parametrize(
    "answers",
    [
        {"chosen": "a", "rejected": "b"},
        {"chosen": GOOD, "rejected": BAD},
        {"chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": "b"},
        {"chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
    ],
    ids=["texts", "turns", "lists", "conversations", "one conversation", "sharegpt"],
)
def test_the_question_and_the_answers_are_found(
    question: dict[str, Any], answers: dict[str, Any]
) -> None:
    """In every place and form, and in several places at once when they agree."""
    pair = read_preference({**question, **answers, "score_chosen": 7.5})
    assert written(pair) == ([USER], GOOD, BAD)


def test_conversations_need_no_question_beside_them() -> None:
    """The prompt is what both begin with, its system text included."""
    before = [SYSTEM, USER, {"role": "assistant", "content": "and?"}, USER]
    pair = read_preference({"chosen": [*before, GOOD], "rejected": [*before, BAD]})
    assert written(pair) == (before, GOOD, BAD)


@pytest.mark.parametrize("answers", [("a", "b"), ([USER, GOOD], [USER, BAD])])
def test_the_system_text_opens_the_prompt(answers: tuple[Any, Any]) -> None:
    """From its own column, beside texts and beside conversations that have none."""
    row = {"system": "s", "prompt": "q", "chosen": answers[0], "rejected": answers[1]}
    assert prompt(read_preference(row)) == [SYSTEM, USER]


def test_an_input_stands_below_its_instruction() -> None:
    """As in Alpaca rows."""
    row = {"instruction": "Add", "input": "1, 2", "chosen": "3", "rejected": "4"}
    assert prompt(read_preference(row)) == [{"role": "user", "content": "Add\n\n1, 2"}]


def test_a_text_may_quote_a_question_of_a_conversation() -> None:
    """Sets with several turns write the first or the last question as prompt."""
    before = [{"role": "user", "content": "one"}, GOOD, {"role": "user", "content": "two"}]
    for quoted in ("one", "two "):
        row = {"prompt": quoted, "chosen": [*before, GOOD], "rejected": [*before, BAD]}
        assert prompt(read_preference(row)) == before


def test_a_number_is_an_answer_and_so_is_nothing() -> None:
    """An answer may be a number or empty: that is what the model said."""
    pair = read_preference({"prompt": "q", "chosen": 42, "rejected": ""})
    assert (pair.chosen.text, pair.rejected.text) == ("42", "")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": None, "rejected": "b"}, "needs chosen"),
        ({"chosen": "a", "rejected": "b"}, "needs a question"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "needs a question"),
        ({"prompt": "q", "question": "r", "chosen": "a", "rejected": "b"}, "prompt and question"),
        ({"prompt": "q", "input": "r", "chosen": "a", "rejected": "b"}, "prompt and input ask"),
        (
            {"prompt": "r", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
            "chosen and prompt ask different things",
        ),
        (
            {"prompt": "q", "messages": [USER, BAD], "chosen": "a", "rejected": "b"},
            "messages ends with an answer that is not the one to train",
        ),
        (
            {"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, BAD, USER, BAD]},
            "differ before their last turn",
        ),
        ({"chosen": [USER, GOOD], "rejected": [USER]}, "rejected must end with the assistant's"),
        ({"chosen": [GOOD], "rejected": [BAD], "messages": [SYSTEM]}, "no question before the answer"),
        ({"prompt": "q", "system": "t", "messages": [SYSTEM, USER], "chosen": "a",
          "rejected": "b"}, "two different system texts"),
        ({"prompt": "q", "chosen": ["a"], "rejected": "b"}, r"chosen\[0\] must be an object"),
        ({"prompt": "q", "chosen": {"content": "a"}, "rejected": "b"}, "chosen needs the text 'role'"),
        ({"prompt": {"a": 1}, "chosen": "a", "rejected": "b"}, "'prompt' must hold text"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(row: dict[str, Any], message: str) -> None:
    """Nothing is guessed where two columns say two things, or one is missing."""
    with pytest.raises(RowError, match=message):
        read_preference(row)


@given(TEXT, TEXT, TEXT, st.none() | TEXT)
def test_answers_arrive_as_written(
    question: str, chosen: str, rejected: str, system: str | None
) -> None:
    """Whatever the texts are, dates and white space included."""
    row = {"prompt": question, "chosen": chosen, "rejected": rejected, "system": system}
    pair = read_preference(row)
    assert pair.turns[-1].text == question
    assert (pair.chosen.text, pair.rejected.text) == (chosen, rejected)
    assert [turn.text for turn in pair.turns[:-1]] == ([system] if system else [])


def _called(place: str, **keys: Any) -> list[dict[str, Any]]:
    """A question, a call with one argument, its result."""
    call = {"id": "1", "function": {"name": "weather", "arguments": {"place": place}}}
    return [
        {"role": "user", "content": "Warm?", **keys},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "21", "tool_call_id": "1"},
    ]


@pytest.mark.parametrize(
    "other",
    [
        _called("Rome"),
        _called("Oslo", name="Ann"),
        [*_called("Oslo")[:2], {"role": "tool", "content": "21", "tool_call_id": "2"}],
    ],
    ids=["call", "name", "id"],
)
def test_prompts_that_differ_in_what_is_not_text(other: list[dict[str, Any]]) -> None:
    """A call, a name or an id is part of the prompt: two that differ are not a common beginning."""
    answers = [{"role": "assistant", "content": text} for text in ("Yes.", "No.")]
    row = {"chosen": [*_called("Oslo"), answers[0]], "rejected": [*other, answers[1]]}
    with pytest.raises(RowError, match="differ before their last turn"):
        read_preference(row)
    row = {"messages": other, "chosen": row["chosen"], "rejected": answers[1:]}
    with pytest.raises(RowError, match="messages ask different things"):
        read_preference(row)


def test_a_text_quotes_a_turn_by_its_text() -> None:
    """A name does not contradict a text; an empty list of calls counts as none."""
    asked = {"role": "user", "content": "Warm?", "name": "Ann", "tool_calls": []}
    answers = [{"role": "assistant", "content": text} for text in ("Yes.", "No.")]
    plain = {key: asked[key] for key in ("role", "content", "name")}
    row = {"prompt": "Warm?", "chosen": [asked, answers[0]], "rejected": [plain, answers[1]]}
    assert prompt(read_preference(row)) == [plain]


def test_rated_completions_become_the_best_against_the_worst() -> None:
    """As in UltraFeedback; what lies between, and other keys, are named as left behind."""
    row = {
        "instruction": "q",
        "models": ["x", "y", "z"],
        "completions": [
            {"model": m, "response": r, "overall_score": s}
            for m, r, s in (("x", "so", 5), ("y", "best", 8.5), ("z", "worst", 1))
        ],
    }
    reading = read_example(row)
    assert isinstance(reading.example, Preference)
    best, worst = ({"role": "assistant", "content": text} for text in ("best", "worst"))
    assert written(reading.example) == ([USER], best, worst)
    named = ("models", "completions.model", "completions between the best and the worst")
    assert reading.left == named
    for completion in row["completions"]:
        completion["overall_score"] = 3  # type: ignore[index]
    with pytest.raises(UnusableRowError, match="same score"):
        read_example(row)
    with pytest.raises(RowError, match="need a score under one key"):
        read_example({"prompt": "q", "completions": [{"response": "a"}, {"response": "b"}]})
