"""How rows reach Axolotl: what its loader reads back, what is refused, and what is said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats.provenance import PROVENANCE
from llmpipe.stages.train_data import Prepared, prepare

pytestmark = pytest.mark.heavy

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
LABELED = {"prompt": "q", "completion": "a", "label": True}


def artifact(folder: Path, rows: Iterable[Mapping[str, Any] | str]) -> Artifact:
    """A file of rows as the engine hands it over; a text is a line as it stands."""
    file = folder / "rows.jsonl"
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return Artifact(file, "records", "digest", "./rows.jsonl")


def prepared(
    folder: Path,
    rows: Iterable[Mapping[str, Any] | str],
    block: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
) -> Prepared:
    """Rows made ready, in ``train.parquet``."""
    target = folder / "train.parquet"
    return prepare(artifact(folder, rows), target, block or {}, str(target), dataset)


def loaded(ready: Prepared, cache: Path) -> list[dict[str, Any]]:
    """What Axolotl's own loader reads of them."""
    import datasets

    datasets.disable_progress_bars()
    entry = ready.file.entry()
    found = datasets.load_dataset(
        entry["ds_type"], data_files=entry["path"], split=entry["split"], cache_dir=str(cache)
    )
    return list(found)


def conversations(ready: Prepared, cache: Path) -> list[tuple[Any, Any]]:
    """Turns and tools, read from their texts as Axolotl's chat_template strategy reads them."""
    rows = loaded(ready, cache)
    return [(json.loads(r["messages"]), r["tools"] and json.loads(r["tools"])) for r in rows]


TEXT = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.dates().map(str)
    | st.datetimes(timezones=st.timezones() | st.none()).map(lambda moment: moment.isoformat())
    | st.integers().map(str)
    | st.sampled_from(["", " ", "null", "1.0", "true", "{}", "2024-01-05", "nan"])
)
NUMBER = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUE = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
CALL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": TEXT, "arguments": st.dictionaries(TEXT, VALUE)})}
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool"]), "content": TEXT},
    optional={
        "tool_calls": st.lists(CALL, min_size=1, max_size=2),
        "name": TEXT,
        "weight": st.sampled_from([0, 1]),
    },
)
ROW = st.fixed_dictionaries(
    {"messages": st.lists(TURN, min_size=1, max_size=3)},
    optional={"tools": st.lists(st.dictionaries(TEXT, VALUE), min_size=1, max_size=2)},
)

SEVERAL = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, *HealthCheck]
)


@SEVERAL
@given(st.lists(ROW, min_size=1, max_size=4))
def test_conversations_arrive_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """Every turn with all its keys: dates, numbers, nulls, empty texts, tools of any shape."""
    folder = tmp_path_factory.mktemp("rows")
    found = conversations(prepared(folder, rows), folder / "cache")
    assert found == [(row["messages"], row.get("tools")) for row in rows]


@SEVERAL
@given(st.lists(st.fixed_dictionaries({"text": TEXT.filter(str.strip)}), min_size=1, max_size=5))
def test_texts_arrive_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """Texts that are dates or numbers stay texts."""
    folder = tmp_path_factory.mktemp("rows")
    assert loaded(prepared(folder, rows), folder / "cache") == rows


@SEVERAL
@given(
    st.lists(
        st.fixed_dictionaries(
            {"instruction": TEXT, "output": TEXT}, optional={"input": st.none() | TEXT}
        ),
        min_size=1,
        max_size=5,
    )
)
def test_alpaca_rows_arrive_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """By Axolotl's Alpaca prompt, a null input as an empty one."""
    folder = tmp_path_factory.mktemp("rows")
    found = loaded(prepared(folder, rows, dataset={"type": "alpaca"}), folder / "cache")
    assert found == [{"system": "", **row, "input": row.get("input") or ""} for row in rows]


@SEVERAL
@given(
    st.lists(
        st.fixed_dictionaries(
            {"id": st.integers(-(2**63), 2**63 - 1), "score": st.floats(allow_nan=False, allow_infinity=False)},
            optional={"when": TEXT, "marks": st.lists(TEXT), "part": st.fixed_dictionaries({"t": TEXT})},
        ),
        min_size=1,
        max_size=4,
    )
)  # fmt: skip
def test_columns_of_a_type_of_ones_own_arrive_as_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """Numbers, dates and lists keep their kind; a column that a row lacks is null."""
    folder = tmp_path_factory.mktemp("rows")
    found = loaded(prepared(folder, rows, dataset={"type": "mine.load"}), folder / "cache")
    columns = dict.fromkeys(name for row in rows for name in row)
    assert found == [{name: row.get(name) for name in columns} for row in rows]


def test_a_key_that_an_object_lacks_is_said(tmp_path: Path) -> None:
    """Parquet gives all objects of a column the same keys; the nulls are counted by column."""
    rows = [
        {"args": {"x": 1}, "calls": [{"f": {"a": 1}}]},
        {"args": {"y": "z"}, "calls": [{"f": {"a": 1}}, {"f": {}}]},
        {"args": {"x": 2, "y": None}, "calls": []},
        {"args": None},
    ]
    ready = prepared(tmp_path, rows, dataset={"type": "mine.load"})
    found = loaded(ready, tmp_path / "cache")
    assert [row["args"] for row in found[:2]] == [{"x": 1, "y": None}, {"x": None, "y": "z"}]
    said = "that lacks a key of other rows, which reads null there"
    assert ready.notes == [
        f"./rows.jsonl: 2 rows with an object in column 'args' {said} (first: line 1)",
        f"./rows.jsonl: 1 row with an object in column 'calls' {said} (first: line 2)",
    ]
    same = prepared(tmp_path, [rows[2], rows[2]], dataset={"type": "mine.load"})
    assert same.notes == []


def test_a_late_column_arrives(tmp_path: Path) -> None:
    """After 12 MB of rows without: the JSON reader fixes the shape by the first 10 MiB."""
    plain = {"messages": [{"role": "user", "content": "q" * 12_000}, CHAT[1]]}
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
    late = {"messages": [CHAT[0], called], "tools": [{"name": "f"}]}
    found = conversations(prepared(tmp_path, [*[plain] * 1000, late]), tmp_path / "cache")
    assert len(found) == 1001
    assert found[-1] == (late["messages"], late["tools"])


def test_numbers_are_answers_as_they_are_written(tmp_path: Path) -> None:
    """1 among fractions stays 1, and 1.10 is not 1.1."""
    numbers = ["1", "1.5", "1.10", "1e3", "12345678901234567890123"]
    rows = [f'{{"instruction": "q", "output": {number}}}' for number in numbers]
    found = conversations(prepared(tmp_path, rows), tmp_path / "cache")
    assert [turns[1]["content"] for turns, _ in found] == numbers


def test_pairs_arrive_with_their_place(tmp_path: Path) -> None:
    """The prompt strategy names a row that it cannot render."""
    (row,) = loaded(prepared(tmp_path, [PAIR], {"rl": "dpo"}), tmp_path / "cache")
    assert {name: row[name] if name == "row" else json.loads(row[name] or "null") for name in row} == {
        "prompt": [CHAT[0]],
        "chosen": CHAT[1],
        "rejected": {"role": "assistant", "content": "b"},
        "tools": None,
        "row": "./rows.jsonl:1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "block", "dataset", "entry"),
    [
        ({"messages": CHAT}, {}, {}, {"type": "chat_template", "field_messages": "messages"}),
        ({"instruction": "q", "output": "a"}, {}, {}, {"type": "chat_template"}),
        ({"instruction": "q", "output": "a"}, {}, {"type": "alpaca"}, {"type": "alpaca"}),
        ({"text": "t"}, {}, {}, {"type": "completion", "field": "text"}),
        (PAIR, {"rl": "ipo"}, {}, {"type": "axolotl_pairs.render"}),
        (PAIR, {"rl": "orpo"}, {}, {"type": "axolotl_pairs.render"}),
        (LABELED, {"rl": "kto"}, {}, {"type": "axolotl_pairs.labeled"}),
        (PAIR, {"reward_model": True}, {}, {"type": "axolotl_pairs.reward"}),
        (PAIR, {"rl": "dpo"}, {"type": "chatml.intel"}, {"type": "chatml.intel"}),
        ({"messages": CHAT}, {}, {"roles_to_train": ["user"]}, {"roles_to_train": ["user"]}),
    ],
)
def test_the_entry_says_how_axolotl_reads_the_rows(
    tmp_path: Path,
    row: dict[str, Any],
    block: dict[str, Any],
    dataset: dict[str, Any],
    entry: dict[str, Any],
) -> None:
    """The chat template unless the stage asks for another type; its own keys over the layout."""
    found = prepared(tmp_path, [row], block, dataset).file.entry()
    place = {"path": str(tmp_path / "train.parquet"), "ds_type": "parquet", "split": "train"}
    assert found.items() >= {**place, **entry}.items()


def test_axolotl_makes_the_tokens_of_the_conversation(tmp_path: Path, tiny_llama: Path) -> None:
    """Its chat_template strategy reads turns and tools from their texts; Alpaca rows go the same way."""
    import datasets
    from axolotl.datasets import wrap_dataset_for_tokenized_prompt
    from axolotl.prompt_strategies import load
    from axolotl.utils.dict import DictDefault
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = (
        "{{ tools | tojson if tools }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    )
    call = {"function": {"name": "f", "arguments": {"day": "2024-01-05", "n": 1, "x": None}}}
    rows: list[dict[str, Any]] = [
        {"messages": [CHAT[0], {"role": "assistant", "content": "", "tool_calls": [call]}]},
        {"messages": CHAT, "tools": [{"name": "f", "default": None}, {"name": "g", "n": 1.5}]},
        {"instruction": "q", "output": "2024-01-05", "system": "s"},
    ]
    turns = [rows[0]["messages"], CHAT]
    turns += [[{"role": "system", "content": "s"}, CHAT[0], {**CHAT[1], "content": "2024-01-05"}]]
    entry = prepared(tmp_path, rows).file.entry()
    strategy = load(
        "chat_template", tokenizer, DictDefault({"sequence_len": 512}), DictDefault(entry)
    )
    data = datasets.load_dataset("parquet", data_files=entry["path"], split="train")
    found = list(wrap_dataset_for_tokenized_prompt(strategy, data))
    for made, messages, row in zip(found, turns, rows, strict=True):
        text = tokenizer.apply_chat_template(messages, tools=row.get("tools"), tokenize=False)
        assert tokenizer.decode(made["input_ids"]) == text
        trained = tokenizer.decode([label for label in made["labels"] if label != -100])
        assert trained == text.split("assistant\n")[1].removesuffix("\n")


def test_one_system_text_changes_one_row(tmp_path: Path) -> None:
    """Axolotl's type with a system text would write another prompt for all rows."""
    rows = [{"instruction": "q", "output": "a"}, {"instruction": "q", "output": "a", "system": "s"}]
    found = conversations(prepared(tmp_path, rows), tmp_path / "cache")
    assert [len(turns) for turns, _ in found] == [2, 3]
    with pytest.raises(StageError, match=r"rows\.jsonl:2: the row has a system text") as caught:
        prepared(tmp_path, rows, dataset={"type": "alpaca"})
    assert "alpaca_w_system.load_instruct" in (caught.value.hint or "")
    all_rows = prepared(tmp_path, rows, dataset={"type": "alpaca_w_system.load_instruct"})
    assert [row["system"] for row in loaded(all_rows, tmp_path / "cache")] == ["", "s"]


def test_formats_may_stand_in_one_file(tmp_path: Path) -> None:
    """All that is a conversation trains by the chat template."""
    rows = [
        {"messages": CHAT},
        {"instruction": "q", "output": "a"},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    ]
    assert conversations(prepared(tmp_path, rows), tmp_path / "cache") == [(CHAT, None)] * 3


@pytest.mark.parametrize(
    ("rows", "block", "dataset", "message"),
    [
        ([], {}, {}, r"\./rows\.jsonl has no rows"),
        ([{"text": " "}], {}, {}, r"\./rows\.jsonl has no rows"),
        (
            [{"text": "a"}, {"question": "b"}],
            {},
            {},
            r"rows\.jsonl:2: the row is in no known format",
        ),
        ([{"text": "a"}, {"messages": CHAT}], {}, {}, r"rows\.jsonl:2: a conversation, but"),
        ([{"messages": [{"role": "user", "content": 4}]}], {}, {}, r"rows\.jsonl:1: messages\[0\]"),
        ([{"instruction": "q", "output": None}], {}, {}, r"rows\.jsonl:1: column 'output'"),
        ([{"prompt": "q", "chosen": "a"}], {"rl": "dpo"}, {}, r"rows\.jsonl:1: .* needs rejected"),
        ([{"input": "q"}], {"reward_model": True}, {}, r"rows\.jsonl:1: .* needs chosen"),
        ([{"text": "t"}], {}, {"train_on_eos": "all"}, "train_on_eos is read for conversations"),
        (
            [{"text": "t"}],
            {},
            {"type": "chat_template"},
            r"rows\.jsonl:1: the row is raw text; this training takes a conversation",
        ),
        ([{"messages": CHAT}], {}, {"type": "completion"}, r"rows\.jsonl:1: no column 'text'"),
        ([{"messages": CHAT}], {}, {"type": "alpaca"}, r"rows\.jsonl:1: no column 'instruction'"),
        (
            [{"a": 1}, {"a": 1.5}],
            {},
            {"type": "mine.load"},
            r"rows\.jsonl:2: column 'a' holds a fraction, but a whole number in a row above",
        ),
        ([{"a": 2**63}], {}, {"type": "mine.load"}, r"rows\.jsonl:1: column 'a': .* 64 bits"),
        ([{"a": [{}]}], {}, {"type": "mine.load"}, r"rows\.jsonl: column 'a' holds only empty obj"),
        (
            [{"a": [{"b": "x"}]}, {"a": [{"b": 1}]}],
            {},
            {"type": "mine.load"},
            r"rows\.jsonl:2: column 'a'\.b holds a whole number, but a text",
        ),
    ],
)
def test_rows_that_cannot_be_trained_on_are_named(
    tmp_path: Path,
    rows: list[dict[str, Any]],
    block: dict[str, Any],
    dataset: dict[str, Any],
    message: str,
) -> None:
    """By file and line, before anything heavy starts."""
    with pytest.raises(StageError, match=message):
        prepared(tmp_path, rows, block, dataset)


def test_what_training_makes_nothing_of_is_said(tmp_path: Path) -> None:
    """Columns and keys that are not read, empty answers; not llmpipe's own provenance."""
    rows = [
        {"messages": CHAT, "id": 7, PROVENANCE: {"id": "x"}, "note": ""},
        {"messages": [CHAT[0], {**CHAT[1], "content": "", "mood": 0}], "id": 8},
        {"messages": CHAT, "text": "t"},
    ]
    empty = "1 row with an empty answer, which teaches the model to answer nothing (first: line {})"
    assert prepared(tmp_path, rows).notes == [
        f"./rows.jsonl: {said}"
        for said in (
            "training does not read the columns id (2 rows), text (1 row)",
            "keys of turns that only a chat template that names them reads: mood (1 turn)",
            empty.format(2),
        )
    ]
    marked = prepared(tmp_path, rows[1:2], dataset={"message_field_training_detail": "mood"})
    assert marked.notes == [
        "./rows.jsonl: training does not read the columns id (1 row)",
        f"./rows.jsonl: {empty.format(1)}",
    ]
    same = prepared(tmp_path, [PAIR, {**PAIR, "rejected": "a"}], {"rl": "dpo"})
    assert "1 row whose two answers are the same" in same.notes[0]
    blank = prepared(tmp_path, [{"text": "t"}, {"text": ""}])
    assert blank.file.rows == 1
    assert "1 row of empty text, left out (first: line 2)" in blank.notes[0]
