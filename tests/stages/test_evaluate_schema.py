"""A JSON Schema is held by llama.cpp, or the stage says that it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.backends.reasoning import Reply
from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.stages.evaluate_schema import HeldSchema

NUMBERS = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2}


def held(folder: Path, schema: Any) -> HeldSchema:
    """Write a schema to a file and read it as the stage does."""
    file = folder / "schema.json"
    file.write_text(schema if isinstance(schema, str) else json.dumps(schema))
    return HeldSchema(Artifact(file, "file", "", "schema.json"))


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("{", "not a JSON Schema"),
        ("[]", "must be an object"),
        ({"type": "integr"}, r"\$\.type: 'integr'"),
        ({"type": "string", "pattern": "^[a$"}, "is not a 'regex'"),
        ({"type": "object", "properties": {"a": 3}}, r"\$\.properties\.a: 3"),
    ],
)
def test_what_is_no_schema_is_told_before_the_model_starts(
    tmp_path: Path, schema: Any, told: str
) -> None:
    """A misspelled type, too: llama.cpp would drop the schema without a word."""
    with pytest.raises(StageError, match=told):
        held(tmp_path, schema)


@pytest.mark.parametrize(
    ("schema", "answer", "told"),
    [
        (NUMBERS, "[1, 2]", None),
        (NUMBERS, "Four.", "'Four.' does not follow schema.json: it is not JSON"),
        (NUMBERS, "", "it is not JSON"),
        (NUMBERS, "[1]", "too short"),
        ({**NUMBERS, "uniqueItems": True}, "[2, 2]", "non-unique"),
        ({"type": "number", "multipleOf": 0.1}, "0.3", None),
        ({"type": "number", "multipleOf": 0.1}, "0.35", "not a multiple"),
    ],
)
def test_every_answer_is_read_again(
    tmp_path: Path, schema: Any, answer: str, told: str | None
) -> None:
    """The row, the answer and what is wrong are named; one that was cut has no end to judge."""
    found = held(tmp_path, schema)
    found.require_followed(Reply(answer, truncated=True), "row 7")
    found.require_followed(Reply("", "Hm", unfinished=True), "row 7")
    if told is None:
        found.require_followed(Reply(answer), "row 7")
        return
    with pytest.raises(StageError, match="row 7: ") as error:
        found.require_followed(Reply(answer), "row 7")
    assert told in error.value.message


@pytest.mark.heavy
def test_a_schema_that_llama_cpp_drops_is_refused(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Regression: such schemas were passed over with status 200, and the metrics said nothing."""
    dropped = [
        {**NUMBERS, "uniqueItems": True},
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        {"$ref": "#/$defs/none"},
        {"not": {"type": "string"}},
        {"type": "string", "pattern": "^(?=a)b$"},
        {"type": "integer", "minimum": 5, "maximum": 2},
        {"type": "object", "properties": {"n": {"type": "string", "format": "iri"}}},
    ]
    kept = [
        NUMBERS,
        {},
        {"enum": ["no"]},
        {"type": "string"},
        {"anyOf": [{"type": "integer"}, {"type": "number"}]},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": NUMBERS}},
        {"type": ["boolean", "null"], "title": "t", "default": True, "x-mine": 1},
    ]
    with serve_gguf(smollm2_gguf, threads=1, context=512) as server:
        for schema in kept:
            held(tmp_path, schema).require_held(server)
        for schema in dropped:
            with pytest.raises(StageError, match="ignores this schema"):
                held(tmp_path, schema).require_held(server)
