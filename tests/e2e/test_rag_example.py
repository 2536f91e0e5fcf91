"""The example ``rag-faq`` run for real: from packaged questions and answers to an answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "rag-faq"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, run once."""
    folder = tmp_path_factory.mktemp("rag") / "rag-faq"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".llmpipe", "*.lock.yaml"))
    return folder


def call(folder: Path, *arguments: str) -> Any:
    """Run the command line; give what it prints as JSON."""
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
