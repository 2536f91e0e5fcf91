"""Which recipe is chosen and why, and what stands in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from init_command import FAQ, compiled, init, write_rows

from llmpipe.cli.init.data import SCHEMA, Data
from llmpipe.cli.init.recipe import choose_recipe, fill, quoted
from llmpipe.cli.init.rows import MANY, Rows
from llmpipe.spec.read import read_spec


@pytest.mark.parametrize(
    ("goal", "documents", "examples", "expected"),
    [
        ("answer", MANY - 1, 0, "rag.yaml"),
        ("answer", 0, MANY - 1, "rag.yaml"),
        ("answer", 0, MANY, "finetune.yaml"),
        ("answer", MANY, 0, "rag.yaml"),
        ("answer", 10, MANY, "finetune.yaml"),
        ("teach", 0, 2, "finetune.yaml"),
        ("teach", MANY, 2, "finetune.yaml"),
    ],
)
def test_the_rule_of_thumb(goal: Any, documents: int, examples: int, expected: str) -> None:
    """Answers from fewer than a million samples: retrieval. Teaching, or more of them: training."""
    texts = Rows("./texts", (0, 1), documents, {"text": "A text."})
    pairs = Rows("./pairs", (0, 2), examples, FAQ[0], "question", "answer")
    data = Data({}, [texts, pairs])
    assert choose_recipe(goal, data).template == expected


def test_documents_to_answer_from_become_rag(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are counted by the ends of their names; the reason stands on the terminal and in the spec."""
    Path(SCHEMA).unlink()
    assert init("--data", "docs", "--goal", "answer") == 0
    out, text = capsys.readouterr().out, Path("spec.yaml").read_text("utf-8")
    assert "./docs/**/*.md: 2 documents" in out
    assert "./docs/settings.json: columns that say nothing: colour" in out
    for told in (out, text):
        assert "retrieval\n" in told or "retrieval is" in told
        assert 'llmpipe ask spec.yaml "…"' in told
    nodes = compiled().nodes
    assert [node.kind for node in nodes.values()] == ["ingest", "chunk", "embed", "index", "rag"]
    assert nodes["docs"].config.paths == ("./docs/**/*.html", "./docs/**/*.md")  # type: ignore[attr-defined]
    assert text.startswith("# yaml-language-server: $schema=./spec.schema.json\n")
    assert json.loads(Path(SCHEMA).read_text("utf-8"))["title"] == "llmpipe spec"


def test_examples_to_teach_become_a_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usual columns are mapped, rows held out, and a question of theirs is asked in the end."""
    assert init("--data", "faq.jsonl", "--goal", "teach") == 0
    assert "./faq.jsonl: 600 examples (question, answer)" in capsys.readouterr().out
    nodes: Any = compiled().nodes
    kinds = {name: node.kind for name, node in nodes.items() if node.derived_for is None}
    assert kinds == {
        "dataset": "format", "sft": "train", "merged": "merge", "gguf": "export",
        "quality": "evaluate", "chat": "serve",
    }  # fmt: skip
    dataset = nodes["dataset"].config
    assert (dataset.data, dataset.map.user, dataset.split.test) == ("./faq.jsonl", "question", 50)
    assert nodes["chat"].config.sample == ("Where is 0?",)
    assert "it takes 150 steps to go through all" in Path("spec.yaml").read_text("utf-8")


def test_a_profile_changes_the_model_only_where_none_was_given(folder: Path) -> None:
    """The profile for a GPU names a larger one of the same family; a model that was named stays."""
    Path("mine").mkdir()
    Path("mine", "config.json").write_text("{}", "utf-8")
    for model, bases in ((), 2), (("--model", "mine"), 1):
        assert init("--data", "faq.jsonl", "--goal", "teach", *model, "--force") == 0
        specs = [read_spec("spec.yaml"), read_spec("spec.yaml", profiles=["gpu"])]
        assert len({spec.params["base"] for spec in specs}) == bases
        assert "bf16" in specs[1].document["stages"]["sft"]["axolotl"]
    assert specs[1].params["base"] == "./mine"


def test_what_a_training_does_not_take_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Documents, and rows that are no examples; of retrieval nothing is left out."""
    write_rows(folder / "texts.jsonl", [{"text": "A text."}])
    data = [part for path in ("docs", "faq.jsonl", "texts.jsonl") for part in ("--data", path)]
    assert init(*data, "--goal", "teach") == 0
    told = (
        "not used, for training takes examples: ./docs/**/*.html, ./docs/**/*.md, ./texts.jsonl\n"
    )
    assert told in capsys.readouterr().out
    assert init("--data", "faq.jsonl", "--goal", "teach", "--force") == 0
    assert init("--data", "docs", "--goal", "answer", "--force") == 0
    assert "not used" not in capsys.readouterr().out


def test_blanks_become_lines() -> None:
    """Several, none, or a part of one; in a comment all are in it."""
    template = "a: {{a}}\n  # {{b}}\n{{c}}\n  {{b}}\n"
    filled = fill(template, {"a": "1", "b": ["x", "", "y"], "c": []})
    assert filled == "a: 1\n  # x\n  #\n  # y\n  x\n\n  y\n"
    assert yaml.safe_load(quoted("a\n$\u2028\t")) == "a\n$\u2028\t"
