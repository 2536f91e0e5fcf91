"""What searches find of questions' answers: floors, and equality with sentence-transformers alone.

One of the collections goes through the stages, with some of its pairs. What is found of the
Python FAQ is held by the test of the example ``rag-sweep``; docstrings differ from Python to Python.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.retrieval.sets import Pair, docstrings, python_faq, unambiguous

ROOT = Path(__file__).parents[2]

PLAIN = "sentence-transformers and numpy"

FLOORS = {"dense": 0.83, "bm25": 0.71, "hybrid": 0.78}
"""nDCG@10 less the worth of two of the forty questions that lose their answers."""


@pytest.fixture(scope="module")
def report() -> dict[str, float]:
    """The benchmark run as its users do, on forty pairs of a collection: nDCG@10 by search."""
    command = [sys.executable, "-m", "benchmarks.retrieval", "--sets", "building permits",
               "--pairs", "40"]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "### building permits: 40 pairs" in result.stdout
    found = {}
    for line in result.stdout.splitlines():
        if line.startswith("| ") and "hybrid −" not in line and "| search" not in line:
            name, *_, ndcg = line.strip("| ").split(" | ")
            found[name] = float(ndcg.split()[0])
    return found


@pytest.mark.heavy
def test_no_search_finds_less_than_it_did(report: Mapping[str, float]) -> None:
    """Every way of searching."""
    for search, floor in FLOORS.items():
        assert report[search] >= floor, search


@pytest.mark.heavy
def test_dense_search_is_that_of_sentence_transformers(report: Mapping[str, float]) -> None:
    """The stages lose nothing on the way from the texts to the ranking."""
    assert report["dense"] == pytest.approx(report[PLAIN], abs=0.002)


@pytest.mark.heavy
def test_the_pages_of_the_faq_are_made_pairs() -> None:
    """A title that asks, and all that stands below it, subsections included, without the title."""
    pairs = list(python_faq())
    assert len(pairs) == len(unambiguous(pairs)) == 159
    by_question = dict(pairs)
    first = by_question["Why does Python use indentation for grouping of statements?"]
    assert first.startswith("Guido van Rossum believes")
    assert all(pair.question not in pair.answer.splitlines()[0] for pair in pairs)


def test_docstrings_are_made_pairs(tmp_path: Path) -> None:
    """Public ones whose first paragraph is followed by enough; what stands there twice goes once."""
    code = 'def {name}():\n    """Do a thing that\n    takes time.\n\n    {rest}\n    """\n'
    rest = " ".join(["word"] * 25)
    (tmp_path / "one.py").write_text(
        code.format(name="shown", rest=rest) + code.format(name="_hidden", rest=rest)
        + code.format(name="brief", rest="Too little.") + code.format(name="again", rest=rest)
    )  # fmt: skip
    (tmp_path / "_private.py").write_text(code.format(name="hidden", rest=rest))
    pairs = list(docstrings(str(tmp_path)))
    assert pairs == [Pair("Do a thing that takes time.", rest)] * 2
    assert unambiguous(pairs) == pairs[:1]
