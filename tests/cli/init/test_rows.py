"""What the columns of rows hold, and how many rows there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from init_command import compiled, init, write_rows

from llmpipe.cli.init.data import look


@pytest.mark.parametrize(
    ("data", "goal", "kinds"),
    [
        (["docs"], "teach", {"./docs/odd.jsonl": "frage"}),
        (["docs/odd.jsonl", "chats.jsonl"], "teach", {"./docs/odd.jsonl": "frage", "./chats.jsonl": None}),
        (["docs"], "answer", {"./docs/odd.jsonl": "frage"}),
    ],
)  # fmt: skip
def test_named_columns_are_those_of_the_rows_that_have_them(
    german: Path, data: list[str], goal: str, kinds: dict[str, str | None]
) -> None:
    """Documents beside them do not hide them, and a known format beside them stays what it is."""
    told = [part for path in data for part in ("--data", path)]
    assert init(*told, "--goal", goal, "--question", "frage", "--answer", "antwort") == 0
    if goal == "answer":
        config: Any = compiled().nodes["docs"].config
        assert (config.paths, config.exclude) == (("./docs",), ("docs/settings.json",))
        assert (config.columns.title, config.columns.text) == ("frage", ("antwort",))
        return
    dataset: Any = compiled().nodes["dataset"].config
    sources = dataset.sources or [dataset]
    assert {s.data: s.map.user if s.map else None for s in sources} == kinds


def test_a_named_column_counts_more_than_a_known_format(folder: Path) -> None:
    """A column called text makes rows no texts where others are named."""
    rows = [{"text": "Long.", "q": f"Where is {i}?", "a": "There."} for i in range(3)]
    write_rows(folder / "odd.jsonl", rows)
    assert init("--data", "odd.jsonl", "--goal", "teach", "--question", "q", "--answer", "a") == 0
    config: Any = compiled().nodes["dataset"].config
    assert (config.map.user, config.map.assistant) == ("q", "a")


def test_rows_are_counted_no_further_than_it_matters(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes behind the limit is not read."""
    monkeypatch.setattr("llmpipe.cli.init.rows.MANY", 3)
    (folder / "many.jsonl").write_text('{"text": "a"}\n' * 3 + "broken\n", "utf-8")
    assert list(look(["many.jsonl"], folder).described()) == [
        "./many.jsonl: at least 3 rows (completion)"
    ]
