"""Rows in other languages: what is told, what is too short to tell, and what is in no language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import lingua
import pytest

from llmpipe.formats.records import write_rows
from llmpipe.stages.curate import Curate
from llmpipe.stages.curate.languages import Languages, prose
from llmpipe.stages.curate.steps import LanguageCode
from llmpipe.testing import Done, run_stage

ENGLISH = "Who may apply for a building permit in the old town?"
GERMAN = "Wer darf in der Altstadt eine Baugenehmigung beantragen?"
DUTCH = "Wie mag in de oude stad een bouwvergunning aanvragen?"

pytestmark = pytest.mark.slow


def curate(folder: Path, rows: list[Any], **step: Any) -> tuple[Done, list[dict[str, Any]]]:
    """Run the step over rows; return what it made, and the rejects."""
    write_rows(folder / "rows.jsonl", rows)
    done = run_stage(
        Curate, {"data": "rows.jsonl", "steps": [{"step": "language", **step}]}, folder
    )
    return done, [json.loads(line) for line in done.outputs["rejects"].read_text().splitlines()]


def pair(question: str, answer: str) -> dict[str, str]:
    """A row."""
    return {"prompt": question, "completion": answer}


def test_each_turn_is_in_an_allowed_language(tmp_path: Path) -> None:
    """An answer in another one is not made good by the question; short turns are not judged."""
    rows = [
        pair(ENGLISH, "The owner may apply, and so may a tenant who has a contract."),
        pair(ENGLISH, GERMAN),
        pair(DUTCH, "Yes."),
        pair("Who?", "Ja, gern."),
        pair("1 2 3 4 5 6 7 8?", "`return wenn und aber oder dann noch einmal`"),
    ]
    done, rejects = curate(tmp_path, rows, allowed=["en"])
    assert [reject["line"] for reject in rejects] == [2, 3]
    assert rejects[0]["reason"] == "a turn is de: 0% for what is allowed"
    assert rejects[0]["keep"] == "allow de, or leave this step out"
    assert done.metrics["steps"] == [
        {
            "step": "language",
            "dropped": 2,
            "turns_by_language": {"de": 1, "en": 3, "nl": 1},
            "too_short_to_tell": 2,
        }
    ]
    assert done.summary.endswith("2 are too short to tell their language")


def test_neighbors_are_told_apart_though_one_alone_is_allowed(tmp_path: Path) -> None:
    """Among German and English alone, Dutch would be German."""
    languages = Languages(["de", "en"])
    assert languages.share(GERMAN)[0] > 0.9
    share, likeliest = languages.share(DUTCH)
    assert share < 0.1
    assert likeliest == "nl"
    assert Languages(["de", "nl"]).share(DUTCH)[0] > 0.9


def test_the_codes_are_those_that_lingua_knows() -> None:
    """A spec with another one is refused before anything is read."""
    known = {language.iso_code_639_1.name.lower() for language in lingua.Language.all()}
    assert set(get_args(LanguageCode)) == known


def test_code_is_in_no_language() -> None:
    """Nor are addresses and formulas; an open block of code is left out to its end."""
    text = "Try `wenn` at https://example.org/wenn:\n```py\nwenn = 1\n```\nThen $$x$$ ```\nmehr"
    assert prose(text).split() == ["Try", "at", "Then"]
