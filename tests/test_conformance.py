"""What every stage kind must keep, ours and any other: one suite over the whole registry."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from kind_sources import differences

from llmpipe.contracts import StageConfig, StageDefaults
from llmpipe.registry import KINDS, stage_class
from llmpipe.spec.schema import editor_stage_schema, stale_schemas, strict_schema

HEAVY = ("torch", "transformers", "axolotl", "datasets", "xllamacpp", "gguf", "openai", "numpy",
         "jsonschema", "peft", "tokenizers", "rouge_score", "rich", "asyncio", "faiss", "bm25s",
         "sentence_transformers", "onnxruntime", "semantic_text_splitter", "docutils", "mammoth",
         "pypdfium2", "bs4", "markdown_it")  # fmt: skip
"""What no stage's module may import before the stage runs."""


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_offers_its_contract(kind: str) -> None:
    """The class has a config, a version, a determinism, and answers the engine's questions."""
    cls = stage_class(kind)
    assert issubclass(cls.Config, StageConfig)
    assert cls.Config.__struct_config__.frozen
    assert cls.Config.__struct_config__.forbid_unknown_fields
    assert isinstance(cls.VERSION, int)
    assert cls.determinism in ("exact", "same-machine", "external")
    assert issubclass(cls, StageDefaults)
    assert cls.__doc__
    assert sys.modules[cls.__module__].__doc__


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_is_described(kind: str) -> None:
    """Each config field carries a docstring: editors and the reference show it."""
    schema = editor_stage_schema(kind)
    bare = [name for name, prop in schema["properties"].items() if not prop.get("description")]
    for title, definition in schema["definitions"].items():
        bare += [
            f"{title}.{name}"
            for name, prop in definition.get("properties", {}).items()
            if not prop.get("description")
        ]
    assert not bare


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_is_closed(kind: str) -> None:
    """Neither the schema nor the class takes a key that it does not know."""
    root = strict_schema(kind)["$ref"].rpartition("/")[2]
    assert strict_schema(kind)["$defs"][root]["additionalProperties"] is False
    with pytest.raises(msgspec.ValidationError, match=r"unknown field|missing required"):
        msgspec.convert({"kind": kind, "no-such-field": 1}, stage_class(kind).Config)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_kind_is_quick_to_import(kind: str) -> None:
    """Planning imports a kind's module: nothing heavy may come with it."""
    module = KINDS[kind].partition(":")[0]
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_the_published_schemas_are_fresh() -> None:
    """``schemas/`` holds what ``llmpipe schema --write schemas`` writes."""
    folder = Path(__file__).parent.parent / "schemas"
    assert stale_schemas(folder) == []


def test_a_change_of_what_makes_artifacts_is_a_decision() -> None:
    """Code below a kind changes only together with its record: see `kind_sources`."""
    changed = differences()
    assert not changed, (
        "code that makes artifacts has changed. Where it makes others of the same inputs, raise the "
        "kind's VERSION; then `make kind-sources`:\n" + "\n".join(changed)
    )
