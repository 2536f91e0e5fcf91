"""What goes in comes out, or is counted by name: over all readers and writers."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats import (
    Conversation,
    Example,
    Labeled,
    Preference,
    Prompt,
    Text,
    Turn,
    read_example,
    write_example,
)
from llmpipe.formats.example import NATURAL
from llmpipe.formats.records import WrittenFloat, from_json, read_rows, to_json, write_rows

WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t.strip())
VALUE = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | WORD,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(WORD, inner, min_size=1, max_size=3)
    ),
    max_leaves=5,
)
KEY = st.text("abcxyz", min_size=2, max_size=5)
OBJECT = st.dictionaries(KEY, VALUE, min_size=1, max_size=3)
CALL = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": WORD, "arguments": OBJECT})}
)
CONTENT = WORD | st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": WORD}), min_size=1, max_size=2
)
BESIDE = {
    "name": st.none() | WORD,
    "reasoning_content": st.none() | WORD,
    "trained": st.none() | st.booleans(),
    "extra": st.just({}) | OBJECT,
}
USER = st.builds(Turn, st.just("user"), CONTENT, **BESIDE)
SAYS = st.builds(Turn, st.just("assistant"), CONTENT, **BESIDE)
CALLS = st.builds(
    Turn, st.just("assistant"), st.none(), tool_calls=st.lists(CALL, min_size=1), **BESIDE
)
RESULT = st.builds(Turn, st.just("tool"), CONTENT, tool_call_id=st.none() | WORD)
SYSTEM = st.builds(Turn, st.just("system"), WORD)
TOOLS = st.none() | st.lists(OBJECT, min_size=1, max_size=2)


@st.composite
def prompts(draw: st.DrawFn) -> list[Turn]:
    """Turns that end with the user's."""
    turns = draw(st.lists(SYSTEM, max_size=1))
    for _ in range(draw(st.integers(0, 2))):
        turns += [draw(USER), *draw(st.just([]) | st.tuples(CALLS, RESULT)), draw(SAYS)]
    return [*turns, draw(USER)]


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """A conversation, tools and calls included."""
    return Conversation([*draw(prompts()), draw(SAYS)], draw(TOOLS))


EXAMPLES: st.SearchStrategy[Example] = st.one_of(
    conversations(),
    st.builds(Text, WORD),
    st.builds(Preference, prompts(), SAYS, SAYS, TOOLS),
    st.builds(Labeled, prompts(), SAYS, st.booleans(), TOOLS),
    st.builds(Prompt, prompts(), st.dictionaries(KEY, VALUE, max_size=2), TOOLS),
)


@given(EXAMPLES)
def test_the_natural_format_loses_nothing(example: Example) -> None:
    """Every case through its own format, as JSON, and back."""
    written = write_example(example, NATURAL[type(example)])
    assert not written.lost
    reading = read_example(from_json(to_json(written.row).encode()))
    assert (reading.example, tuple(reading.left)) == (example, ())


@given(conversations())
def test_sharegpt_loses_nothing(example: Conversation) -> None:
    """A conversation through ShareGPT's names, and back."""
    written = write_example(example, "sharegpt")
    assert read_example(from_json(to_json(written.row).encode())) == (example, ())


@given(st.lists(SYSTEM, max_size=1), st.lists(st.tuples(USER, SAYS), min_size=1, max_size=3))
def test_alpaca_loses_what_it_names(system: list[Turn], pairs: list[tuple[Turn, Turn]]) -> None:
    """Roles and texts come back; all else that turns had is named."""
    example = Conversation([*system, *(turn for pair in pairs for turn in pair)])
    row, lost = write_example(example, "alpaca")
    found = read_example(row).example
    assert isinstance(found, Conversation)
    assert [(t.role, t.text) for t in found.turns] == [(t.role, t.text) for t in example.turns]
    had = {
        key
        for t in example.turns
        for key, value in (
            ("name", t.name),
            ("reasoning_content", t.reasoning_content),
            ("weight", t.trained),
        )
        if value is not None
    }
    assert set(lost) == had | {key for t in example.turns for key in t.extra}


@given(EXAMPLES, st.dictionaries(KEY.map("x_{}".format), VALUE, max_size=3))
def test_further_columns_are_named(example: Example, more: dict[str, Any]) -> None:
    """Whatever else a row has stands in the example, or in the list of what was left behind."""
    row = {**write_example(example, NATURAL[type(example)]).row, **more}
    reading = read_example(row)
    kept = reading.example.fields if isinstance(reading.example, Prompt) else {}
    assert {name for name in more if name not in kept} == set(reading.left)


ROWS = st.lists(
    st.dictionaries(st.text("abc", min_size=1, max_size=2), WORD, min_size=1), min_size=1
).map(lambda rows: [{name: row.get(name, "-") for name in rows[0]} for row in rows])


def _jsonl(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def _columnar(rows: list[dict[str, str]], ending: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, sink = pa.Table.from_pylist(rows), io.BytesIO()
    if ending == "parquet":
        pq.write_table(table, sink)
    else:
        opened = pa.ipc.new_file if ending == "file" else pa.ipc.new_stream
        with opened(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getvalue()


FILES = {
    "rows.jsonl": _jsonl,
    "rows.jsonl.gz": lambda rows: gzip.compress(_jsonl(rows)),
    "rows.json": lambda rows: json.dumps(rows).encode(),
    "rows.json.gz": lambda rows: gzip.compress(json.dumps(rows, indent=1).encode()),
    "pretty.json": lambda rows: json.dumps({"data": rows}, indent=2).encode(),
    "wrapped.json": lambda rows: json.dumps({"data": rows}).encode(),
    "utf-16.jsonl": lambda rows: _jsonl(rows).decode().encode("utf-16"),
    "rows.parquet": lambda rows: _columnar(rows, "parquet"),
    "rows.arrow": lambda rows: _columnar(rows, "stream"),
    "rows.feather": lambda rows: _columnar(rows, "file"),
}


@pytest.mark.parametrize("name", FILES)
@given(rows=ROWS)
def test_every_kind_of_file_gives_its_rows(name: str, rows: list[dict[str, str]]) -> None:
    """Packed, wide, pretty-printed, columnar: the rows as they were written, in order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(FILES[name](rows))
        assert [row for _, row in read_rows(path, name, floats=WrittenFloat)] == rows


@given(rows=ROWS)
def test_a_table_gives_its_rows(rows: list[dict[str, str]]) -> None:
    """All that a table can hold: a return in a value comes back as the reader of tables reads it."""
    rows = [
        {k: v.replace("\r", "").replace("\0", "") or "-" for k, v in row.items()} for row in rows
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.csv.gz"
        path.write_bytes(gzip.compress(_csv(rows)))
        assert [row for _, row in read_rows(path, "rows.csv.gz")] == rows


@pytest.mark.slow
@given(st.lists(EXAMPLES, min_size=1, max_size=3))
def test_examples_survive_a_file(examples: list[Example]) -> None:
    """Written as JSONL and read back."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, (write_example(each, NATURAL[type(each)]).row for each in examples))
        found = [read_example(row).example for _, row in read_rows(path, "rows")]
    assert found == examples
