"""Rows that are dropped by what they say: damaged text, repetition, refusals, length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats.leakage import normalize
from llmpipe.formats.records import write_rows
from llmpipe.stages.curate import Curate
from llmpipe.stages.curate.damage import damaged
from llmpipe.stages.curate.words import compared_words, normal_words
from llmpipe.testing import make_config, run_stage

KEPT = {"text": "Oranges are boxed by hand: 12 to a box, twice a day."}


def rejects(folder: Path, texts: list[str], **step: Any) -> list[dict[str, Any]]:
    """Run a step over answers and a row that it keeps; return the rejects."""
    write_rows(folder / "rows.jsonl", [KEPT, *({"prompt": "Go", "completion": t} for t in texts)])
    done = run_stage(Curate, {"data": "rows.jsonl", "steps": [step]}, folder)
    lines = done.outputs["rejects"].read_text("utf-8").splitlines()
    assert done.metrics["kept"] == 1 + len(texts) - len(lines)
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("café, niño, Œuvre, «À»", 0),
        ("naïve — “quoted” … 10 €, São Paulo, Ångström, ÃO", 0),
        ("日本語 한국어 עברית العربية 👩‍🌾 e\u0301", 0),
        ("tabs\tand\r\nlines", 0),
        ("„Viel Spaß“, „groß… Maß“, „MENÜ“ und „JÄ“, der Buchstabe „Ä“", 0),
        ("CAFÉ’S, “café”… « à\xa0» et « café\xa0», “MAÇÔ, «está»…, «BLÅ», 300 Å² und CAFÉ\xa0!", 0),
        ("voilÃ\xa0 la clÃ©, VOILÃ€, CÃ“DIGO, Å\xa0koda, Â«ouiÂ»", 7),
        ("nguyá»…n, ðŸ˜€, ï»¿end, ã€‚", 4),
        ("ÐŸÑ€Ð¸Ð²ÐµÑ‚, Îµá½–", 2),
        ("cafÃ© and niÃ±o", 2),
        ("itâ€™s damaged", 1),
        ("the caf\ufffd is closed", 1),
        ("a\x00b\x08", 2),
        ("æ—¥æœ¬èªž", 1),
    ],
)
def test_damaged_text(text: str, count: int) -> None:
    """UTF-8 that was read as Windows-1252 is told from letters that are meant."""
    assert len([*damaged(text)]) == count


@given(text=st.text(st.characters(min_codepoint=0xA0, max_codepoint=0x24F), min_size=2))
def test_misread_text_is_always_seen(text: str) -> None:
    """Letters of European languages, read as Latin-1."""
    assert [*damaged(text.encode().decode("latin-1"))]


@given(text=st.text())
def test_words_are_read_the_same_on_the_quick_way(text: str) -> None:
    """ASCII has a way of its own."""
    whole = normalize(text)
    expected = (whole.encode("utf-8", "surrogatepass"), compared_words(whole))
    assert normal_words(text) == expected


def test_encoding_drops_rows_by_the_number_of_damaged_places(tmp_path: Path) -> None:
    """The reject shows the first, what it was, and how to keep the row."""
    texts = ["the cafÃ© of JosÃ©", "a caf\ufffd"]
    first, second = rejects(tmp_path, texts, step="encoding")
    assert first["reason"] == "2 damaged: 'Ã©', which was 'é'"
    assert (first["score"], first["keep"]) == (2, "raise most to 2")
    assert second["row"]["completion"] == "a caf\ufffd"
    assert len(rejects(tmp_path, texts, step="encoding", most=1)) == 1


def test_repetition(tmp_path: Path) -> None:
    """A loop is dropped; a text that says much, and a short one, are not."""
    loop = "and then the farmer went to the market " * 9
    story = " ".join(f"word{number}" for number in range(200))
    (found,) = rejects(tmp_path, [loop, story, "ha ha ha ha ha ha ha"], step="repetition")
    assert found["rule"] == "repetition"
    assert found["score"] > 0.8
    keep = float(found["keep"].removeprefix("raise most to "))
    assert rejects(tmp_path, [loop], step="repetition", most=keep) == []
    (found,) = rejects(tmp_path, ["ha " * 30_000], step="repetition")
    assert found["keep"] == "leave this step out"


def test_tools_are_no_turns(tmp_path: Path) -> None:
    """Their words do not count, and schemas repeat themselves."""
    parameter = {"type": "string", "description": "the name of a city to look for"}
    tools = [{"function": {"name": "f", "parameters": {f"p{n}": parameter for n in range(30)}}}]
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "Go", "completion": "a b", "tools": tools}])
    steps = [{"step": "repetition"}, {"step": "length", "max_words": 3, "min_answer_words": 2}]
    assert run_stage(Curate, {"data": "rows.jsonl", "steps": steps}, tmp_path).metrics["kept"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("I’m sorry, but I can’t share that.", "refusal"),
        ("Es tut mir leid, aber ich kann das nicht.", "refusal"),
        ("Désolé, je ne peux pas répondre.", "refusal"),
        ("Lo siento, pero no puedo hacerlo.", "refusal"),
        ("抱歉，我无法回答这个问题。", "refusal"),
        ("Well. As an AI language model, I have no taste.", "language_model"),
        ("The best orange is, to be frank, none", "phrase"),
        ("Write: I am sorry that you cannot come.", None),
        ("I'm sorry, but I can only come on Monday.", None),
        ("BERT was pretrained as a language model on books. I like it.", None),
        ("Split my training data into three folds.", None),
        ("Estudian disciplinas como inteligencia artificial, robótica.", None),
        ("Como inteligencia artificial, no tengo opiniones.", "language_model"),
        ("作为一个AI，我没有味觉。", "language_model"),
        ("非常抱歉，我无法回答。", "refusal"),
        ("Tut mir leid, aber ich kann dir das leider nicht sagen.", "refusal"),
        ("Tut mir leid, aber ich kann erst am Montag kommen.", None),
        (
            "<think>The user asks. " + "Let me see. " * 30 + "</think>I cannot help with it.",
            "refusal",
        ),
        ("<think>I cannot help with all of it.</think>Take the second road.", None),
        ("To be frankly honest, yes", None),
        (f"{'The letter reads as follows. ' * 9}I cannot help with the harvest.", None),
    ],
)
def test_refusals(tmp_path: Path, text: str, rule: str | None) -> None:
    """In several languages, at the beginning of an answer; further phrases anywhere."""
    found = rejects(tmp_path, [text], step="refusals", phrases=["To be FRANK"])
    assert [each["rule"] for each in found] == ([rule] if rule else [])


def test_the_answer_behind_its_thoughts_refuses(tmp_path: Path) -> None:
    """However long the thoughts are that stand beside it."""
    answer = {"role": "assistant", "reasoning_content": "Let me see. " * 40}
    messages = [{"role": "user", "content": "Go"}, {**answer, "content": "I must decline."}]
    write_rows(tmp_path / "rows.jsonl", [KEPT, {"messages": messages}])
    done = run_stage(Curate, {"data": "rows.jsonl", "steps": [{"step": "refusals"}]}, tmp_path)
    assert done.metrics["dropped"] == {"refusal": 1}


def test_an_answer_to_avoid_may_refuse(tmp_path: Path) -> None:
    """The rejected one of a pair, and one that is labeled as bad; the chosen one may not."""
    refusal = "I cannot help with that."
    rows = [
        {"prompt": "Go", "chosen": "Gone", "rejected": refusal},
        {"prompt": "Go", "chosen": refusal, "rejected": "Gone"},
        {"prompt": "Go", "completion": refusal, "label": False},
        {"prompt": "Go", "completion": refusal, "label": True},
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    done = run_stage(Curate, {"data": "rows.jsonl", "steps": [{"step": "refusals"}]}, tmp_path)
    lines = done.outputs["rejects"].read_text("utf-8").splitlines()
    assert [json.loads(line)["line"] for line in lines] == [2, 4]


@pytest.mark.parametrize(
    ("step", "field"),
    [
        ({"step": "refusals"}, "step"),
        ({"step": "length", "min_answer_words": 2}, "min_answer_words"),
    ],
)
def test_columns_do_not_say_what_answers(step: dict[str, Any], field: str) -> None:
    """Steps that look at answers alone are refused beside them."""
    config = make_config(Curate, {"data": "r.jsonl", "steps": [step]})
    ((path, told),) = Curate.problems(msgspec.structs.replace(config, columns=("a",)))
    assert path == ("steps", 0, field)
    assert "which texts are answers" in told


def test_length(tmp_path: Path) -> None:
    """Words of all turns, and of the answer."""
    texts = ["", "one", "one two three four five six seven eight nine ten eleven twelve thirteen"]
    step = {"step": "length", "min_words": 2, "max_words": 12, "min_answer_words": 2}
    found = rejects(tmp_path, texts, **step)
    assert [each["rule"] for each in found] == ["min_words", "min_answer_words", "max_words"]
    assert [each["keep"] for each in found] == [
        "lower min_words to 1", "lower min_answer_words to 1", "raise max_words to 14",
    ]  # fmt: skip


def test_a_schema_refuses_rows(tmp_path: Path) -> None:
    """A column, or the JSON in it; the reject says where and why."""
    schema = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}
    texts = ['{"city": "Soria"}', '{"city": 3}', "Soria", '```json\n{"city": ""}\n```']
    rows = [{"prompt": "Where?", "completion": text} for text in texts] + [{"text": "no column"}]
    write_rows(tmp_path / "rows.jsonl", rows)
    step = {"step": "schema", "column": "completion", "schema": schema}
    done = run_stage(Curate, {"data": "rows.jsonl", "steps": [step]}, tmp_path)
    found = [json.loads(line) for line in done.outputs["rejects"].read_text().splitlines()]
    assert [reject["reason"] for reject in found] == [
        "completion: city: 3 is not of type 'string'",
        "completion: not JSON: Expecting value: line 1 column 1 (char 0)",
        "has no column completion",
    ]


def test_a_schema_describes_the_whole_row(tmp_path: Path) -> None:
    """Its provenance is not part of it."""
    write_rows(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "a", "url": "b"}])
    step = {"step": "schema", "schema": {"additionalProperties": False, "properties": {"text": {}}}}
    done = run_stage(Curate, {"data": "rows.jsonl", "steps": [step]}, tmp_path)
    assert (done.metrics["kept"], done.metrics["dropped"]) == (1, {"schema": 1})


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "strnig"}, "is not a JSON Schema"),
        ({"$ref": "./other.json"}, "refers to './other.json'"),
    ],
)
def test_a_schema_that_is_none_is_refused(schema: dict[str, Any], told: str) -> None:
    """Before anything is read."""
    fields = {"data": "rows.jsonl", "steps": [{"step": "schema", "schema": schema}]}
    with pytest.raises(AssertionError, match=told):
        make_config(Curate, fields)
