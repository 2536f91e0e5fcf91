"""The method template without a model: samplers, order, validators, seeds, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from generation import TEACHER, Client, MethodRun

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.stages.generate.methods.template import TemplateMethod

COLUMNS: dict[str, Any] = {
    "ticket": {"prompt": "Write: {{ summary }}", "system": "{{ tone }}"},
    "summary": {"template": "{{ boxes }} boxes to {{ district }} in {{ city }} for {{ name }}"},
    "district": {"of": "city", "by": {"Rome": ["Trastevere", "Prati"], "Oslo": ["Frogner"]}},
    "city": {"values": ["Rome", "Oslo"], "weights": [3, 1]},
    "boxes": {"number": {"min": 1, "max": 9}},
    "weight": {"number": {"min": 0.5, "max": 2, "decimals": 2}},
    "day": {"date": {"first": "2024-02-28", "last": "2024-03-01"}},
    "name": {"person": {"given": ["A", "B"], "family": ["One", "Two"]}},
    "tone": {"values": ["Be brief.", ""]},
}


def echoed(request: ChatRequest) -> str:
    """Reply with what was asked and the seed."""
    if "score" in str(request.schema):
        return json.dumps({"score": 1 if "Seven the of" in request.messages[-1]["content"] else 4})
    return f"{request.messages[-1]['content'][7:]} ({request.seed})"


@pytest.fixture
def run(tmp_path: Path) -> MethodRun:
    """Nine columns that depend on each other, out of order."""
    return MethodRun(tmp_path, TemplateMethod, method="template", columns=COLUMNS)


def test_columns_are_made_in_the_order_of_their_dependence(run: MethodRun) -> None:
    """Each row is of its own values: the subcategory of its category, the prompt of its summary."""
    client = Client(echoed)
    rows = [row.fields for row in run(client, 300).rows]
    assert len(rows) == 300
    assert list(rows[0]) == list(COLUMNS)
    for row in rows:
        assert row["district"] in COLUMNS["district"]["by"][row["city"]]
        assert row["ticket"].startswith(row["summary"])
        assert 1 <= row["boxes"] <= 9
        assert 0.5 <= row["weight"] <= 2
        assert datetime.strptime(row["day"], "%d %B %Y").month in (2, 3)
    assert 180 < Counter(row["city"] for row in rows)["Rome"] < 265
    assert {row["day"] for row in rows} == {"28 February 2024", "29 February 2024", "01 March 2024"}
    assert {row["name"] for row in rows} == {"A One", "A Two", "B One", "B Two"}
    assert {len(request.messages) for request in client.asked} == {1, 2}  # an empty system is none


def test_neither_count_nor_order_of_columns_changes_a_value(run: MethodRun) -> None:
    """Values depend on the seed, the row and the column alone; another random seed differs."""
    first = [row.fields for row in run(Client(echoed), 5).rows]
    teacher = {**TEACHER, "concurrency": 9}
    turned = dict(reversed(COLUMNS.items()))
    again = run(Client(echoed), 250, columns=turned, teacher=teacher).rows
    assert [row.fields for row in again[:5]] == first
    assert [row.fields for row in run(Client(echoed), 5, random_seed=1).rows] != first


def test_seeds_are_columns_and_parents(run: MethodRun) -> None:
    """Each seed makes a row in every pass; their order in the file does not matter."""
    rows = [{"topic": f"tide {i}"} for i in range(4)]
    fields = {
        "columns": {
            "n": {"number": {"min": 1, "max": 10**9}},
            "a": {"prompt": "Write: {{ topic }}"},
        },
        "row": {"instruction": "On {{ topic }}", "output": "{{ a }}"},
        "seeds": "./s.jsonl",
    }
    run.write("seeds", rows)
    made = run(Client(echoed), 10, **fields).rows
    run.write("seeds", [*rows[::-1], rows[0]])
    assert run(Client(echoed), 10, **fields).rows[3].fields == made[3].fields
    assert run.told == ["seeds.jsonl: rows that repeat another, not used: 1"]
    assert set(made[0].fields) == {"instruction", "output"}
    assert Counter(row.fields["instruction"] for row in made).most_common()[-1][1] == 2
    assert all(len(row.made_from) == 1 for row in made)


def test_a_reply_by_a_schema_is_a_value(run: MethodRun) -> None:
    """Its fields can be used; one that does not match is rejected with the place."""
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    columns = {
        "i": {"number": {"min": 0, "max": 10**9}},
        "a": {"prompt": "{{ i }}", "schema": schema},
        "b": {"template": "{{ a.n + 1 }}"},
    }

    def reply(request: ChatRequest) -> ChatReply:
        assert request.schema == schema
        texts = [f'```json\n{{"n": {request.seed}}}\n```', '{"n": "1"}', '{"n": 1', "[]"]
        return ChatReply(texts[request.seed % 4])

    state = run(Client(reply), 6, columns=columns)
    assert len(state.rows) == 6
    assert all(int(row.fields["b"]) == row.fields["a"]["n"] + 1 for row in state.rows)
    assert {reject.reason for reject in state.rejects} == {"malformed"}
    details = {reject.detail for reject in state.rejects}
    assert "n: '1' is not of type 'integer'" in details
    assert any(detail.startswith("not JSON") for detail in details)


def test_validators_reject_with_the_reason(run: MethodRun) -> None:
    """A pattern, a schema, a Python file and a judge: still as many rows as wanted."""
    path = run.folder / "check.py"
    path.write_text(
        "def validate(row):\n    row['boxes'] = 0\n"
        "    return 'a Thursday' if row['weight'] > 1.9 else None\n"
    )
    run.inputs["validators.2.python"] = Artifact(path, "file", "", "./check.py")
    validators = [
        {"column": "ticket", "pattern": "^[1-8] boxes"},
        {"column": "boxes", "schema": {"not": {"const": 5}}},
        {"python": "./check.py"},
        {"column": "ticket", "judge": {"rubric": "Good?", "scale": [1, 5], "threshold": 3}},
    ]
    state = run(Client(echoed), 60, validators=validators)
    assert len(state.rows) == 60
    assert {reject.reason: reject.operator for reject in state.rejects} == {
        "pattern": "validator 1", "schema": "validator 2", "python validator": "validator 3",
    }  # fmt: skip
    assert {r.detail for r in state.rejects if r.reason[0] == "p" and r.operator[-1] == "3"} == {
        "a Thursday"
    }
    assert state.rows[0].details["judge"]["ticket"]["score"] == 4
    assert all(row.fields["boxes"] in (1, 2, 3, 4, 6, 7, 8) for row in state.rows)
    assert run.metrics["judges"]["validator 4"]["control"] == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def validate(row):\n    return 1 / 0\n", "check.py:2: ZeroDivisionError"),
        ("def validate(row):\n    return False\n", "check.py: validate returned False"),
        ("def validate(row:\n", "./check.py:1: SyntaxError"),
        ("import nothing_of_this_name\n", "./check.py:1: ModuleNotFoundError"),
        ("valid = 1\n", "./check.py has no function 'validate'"),
    ],
)
def test_a_mistake_in_the_python_file_is_named(run: MethodRun, code: str, message: str) -> None:
    """With its file and line; nothing is rejected by a validator that does not work."""
    path = run.folder / "check.py"
    path.write_text(code)
    run.inputs["validators.0.python"] = Artifact(path, "file", "", "./check.py")
    with pytest.raises(StageError) as caught:
        run(Client(echoed), 2, validators=[{"python": "./check.py"}])
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (ChatReply("x", truncated=True), "truncated"),
        (ChatReply(" "), "empty"),
        (ChatReply(problem="failed", detail="500"), "failed"),
    ],
)
def test_what_is_rejected(run: MethodRun, reply: ChatReply, reason: str) -> None:
    """Where nothing passes, the stage ends after its patience."""
    with pytest.raises(StageError, match=rf"no usable row from templates \(rejected: {reason} 9\)"):
        run(Client(lambda request: reply), 4, patience=9)


@pytest.mark.parametrize(
    ("columns", "field", "message"),
    [
        ({"a": {}}, (), "it has none of them"),
        ({"a": {"values": ["x"], "prompt": "y"}}, (), "it has values and prompt"),
        ({"a": {"values": []}}, ("values",), "is empty"),
        ({"a": {"values": ["x"], "weights": [1, 2]}}, ("weights",), "2 weights for 1 values"),
        ({"a": {"values": ["x"], "weights": [0]}}, ("weights",), "not all 0"),
        ({"a": {"template": "x", "weights": [1]}}, ("weights",), "belongs to a column with values"),
        ({"a": {"of": "b"}}, ("by",), "is missing"),
        ({"a": {"number": {"min": 2, "max": 1}}}, ("number",), "min 2 is above max 1"),
        ({"a": {"number": {"min": 0, "max": float("inf")}}}, ("number",), "is needed on each side"),
        ({"a": {"number": {"min": float("nan"), "max": 1}}}, ("number",), "is needed on each side"),
        ({"a": {"number": {"min": 0, "max": 1e308, "decimals": 9}}}, ("number",), "is needed on"),
        ({"a": {"date": {"first": "1 May", "last": "2024-01-01"}}}, ("date",), "2024-01-31"),
        ({"a": {"person": {"given": [" "]}}}, ("person",), "blank"),
        ({"a": {"prompt": "x\n{{ b"}}, ("prompt",), "line 2:"),
        ({"a": {"prompt": "x", "schema": {"type": "nothing"}}}, ("schema",), "not a JSON Schema"),
    ],
)
def test_a_column_without_sense_is_refused(
    run: MethodRun, columns: dict[str, Any], field: tuple[str, ...], message: str
) -> None:
    """Each mistake at its field, before anything runs."""
    problems = list(run.config(count=1, columns=columns).own_problems())
    assert [place for place, _ in problems] == [("columns", "a", *field)]
    assert message in problems[0][1]


@pytest.mark.parametrize(
    ("fields", "place", "message"),
    [
        (
            {"columns": {"city": {"values": ["x"]}, "a": {"prompt": "x\n{{ ctiy }}"}}},
            ("columns", "a", "prompt"),
            "line 2: there is no column 'ctiy'; did you mean 'city'?",
        ),
        ({"row": {"x": "{{ tciket }}"}}, ("row", "x"), "line 1: there is no column 'tciket'"),
        ({"row": {}}, ("row",), "is empty"),
        (
            {"columns": {"a": {"template": "{{ b }}"}, "b": {"template": "{{ a }}"}}},
            ("columns",),
            "columns are made from each other: a → b → a",
        ),
        ({"columns": {"a b": {"values": ["x"]}}}, ("columns", "a b"), "letters, digits"),
        ({"validators": [{"column": "a"}]}, ("validators", 0), "exactly one of"),
        ({"validators": [{"pattern": "x"}]}, ("validators", 0, "column"), "is missing"),
        (
            {"validators": [{"column": "city", "pattern": "("}]},
            ("validators", 0, "pattern"),
            "is not a regular expression",
        ),
        (
            {"validators": [{"column": "nothing", "pattern": "x"}]},
            ("validators", 0, "column"),
            "there is no column 'nothing'",
        ),
    ],
)
def test_a_name_that_means_nothing_is_refused(
    run: MethodRun, fields: dict[str, Any], place: tuple[Any, ...], message: str
) -> None:
    """With the line and the name probably meant."""
    problems = list(run.config(count=1, **fields).own_problems())
    assert [found for found, _ in problems] == [place]
    assert message in problems[0][1]


def test_a_column_that_neither_seeds_nor_stage_have(run: MethodRun, tmp_path: Path) -> None:
    """The columns that the stage makes are suggested as well."""
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"topic": "bees"}\n')
    columns = {"city": {"values": ["x"]}, "a": {"prompt": "{{ topic }} in {{ ctiy }}"}}
    (found,) = run.config(count=1, seeds=str(seeds), columns=columns).review()
    assert found.field == ("columns", "a", "prompt")
    assert found.message == "no row of seeds.jsonl has a column 'ctiy'"
    assert found.hint == "did you mean 'city'?"


def test_mistakes_that_only_the_seeds_show(run: MethodRun) -> None:
    """A column that neither side has, one that both have, and a file without rows."""
    seeded = {"seeds": "./s.jsonl", "columns": {"a": {"template": "\n{{ tpoic }}"}}}
    run.write("seeds", [{"topic": "tide"}])
    with pytest.raises(StageError, match=r"columns.a.template: line 2: there is no column 'tpoic'"):
        run(Client(echoed), 1, **seeded)
    with pytest.raises(StageError, match=r"seeds.jsonl:1: column 'topic' is also made by the spec"):
        run(Client(echoed), 1, seeds="./s.jsonl", columns={"topic": {"values": ["x"]}})
    run.write("seeds", [])
    with pytest.raises(StageError, match="has no rows to start from"):
        run(Client(echoed), 1, **seeded)


def test_a_value_without_a_subcategory_names_its_row(run: MethodRun) -> None:
    """The message has the row, the value and the one probably meant."""
    columns = {"city": {"values": ["Rom"]}, "part": COLUMNS["district"]}
    with pytest.raises(StageError) as caught:
        run(Client(echoed), 1, columns=columns)
    assert caught.value.message.startswith("columns.part: row 1: 'by' has no values for 'Rom'")
    assert "Rome" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"columns": {"a": {"of": "c", "by": {"x": ["y"]}}}}, "columns.a.of"),
        ({"columns": {"a": {"values": ["x"]}}, "validators": [{"column": "c", "pattern": "x"}]},
         "validators.0.column"),
    ],
)  # fmt: skip
def test_seeds_of_unequal_columns_are_named(
    run: MethodRun, fields: dict[str, Any], place: str
) -> None:
    """Before anything is asked; a template may do without a column."""
    run.write("seeds", [{"c": "x"}, {"d": "x"}])
    with pytest.raises(StageError) as caught:
        run(Client(echoed), 1, seeds="./s.jsonl", **fields)
    assert caught.value.message == f"{place}: seeds.jsonl:2 has no column 'c'"


@pytest.mark.parametrize("text", [r'{"n": "\ud83d"}', '{"n": NaN}', '{"n": 1e999}'])
def test_a_value_that_no_file_can_hold_is_rejected(run: MethodRun, text: str) -> None:
    """Not after all is paid for: half of a surrogate pair, and numbers that JSON does not have."""
    columns = {"a": {"prompt": "x", "schema": {"type": "object"}}}
    with pytest.raises(StageError, match=r"rejected: malformed 3\)"):
        run(Client(lambda request: text), 1, columns=columns, patience=3)


@pytest.mark.parametrize(
    "fields",
    [
        {"columns": {"b": {"template": "{{ a.n }}"}}},
        {"columns": {"b": {"prompt": "{{ a.n }}"}}},
        {"columns": {"b": {"prompt": "x", "system": "{{ a.n }}"}}},
        {"columns": {"t": {"template": "{{ a|length }}"}, "b": {"of": "t", "by": {"1": ["y"]}}}},
        {"columns": {"b": {"values": ["x"]}}, "row": {"x": "{{ a.n }} {{ i }}"}},
    ],
)
def test_a_reply_that_a_template_cannot_use_rejects_its_row(
    run: MethodRun, fields: dict[str, Any]
) -> None:
    """The other rows are made; a mistake of the spec's own is still an error."""
    own = {"i": {"number": {"min": 0, "max": 10**9}},
           "a": {"prompt": "{{ i }}", "schema": {"type": "object"}}}  # fmt: skip
    columns = {**own, **fields["columns"]}

    def reply(request: ChatRequest) -> str:
        return "text" if request.schema is None else ["{}", '{"n": 1}'][request.seed % 2]

    state = run(Client(reply), 4, **{**fields, "columns": columns})
    assert len(state.rows) == 4
    assert {reject.reason for reject in state.rejects} == {"template"}
