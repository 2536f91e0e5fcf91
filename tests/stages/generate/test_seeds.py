"""The prompts that generation starts from, and columns that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.stages.generate.seeds import SeedMap, read_seeds


@pytest.mark.parametrize(
    ("columns", "message", "hint"),
    [
        (SeedMap(user="promt"), "seeds.csv:2: no column 'promt'; the row has 'prompt', 'system'", "prompt"),
        (SeedMap(user="prompt", system="sytem"), "seeds.csv: no row has a column 'sytem'; they have 'prompt', 'system'", "system"),
    ],
)  # fmt: skip
def test_a_misspelled_column(tmp_path: Path, columns: SeedMap, message: str, hint: str) -> None:
    """Those that are there are named, and the nearest."""
    (tmp_path / "seeds.csv").write_text("prompt;system\nHow heavy is it?;Be brief.\n")
    source = Artifact(tmp_path / "seeds.csv", "records", "", "seeds.csv")
    assert len(read_seeds(source, SeedMap(user="prompt", system="system"), print)) == 1
    with pytest.raises(StageError) as caught:
        read_seeds(source, columns, print)
    assert (caught.value.message, caught.value.hint) == (message, f"did you mean {hint!r}?")


def test_rows_that_are_not_used_are_counted(tmp_path: Path) -> None:
    """A row without a prompt and a repeated row are told, with the place of the first of each."""
    file = tmp_path / "seeds.jsonl"
    file.write_text(
        '{"instruction": "Weigh it."}\n{"instruction": " "}\n{"instruction": "Weigh it."}\n'
    )
    told: list[str] = []
    (seed,) = read_seeds(Artifact(file, "records", "", "seeds.jsonl"), None, told.append)
    assert seed.instruction == "Weigh it."
    assert told == [
        "seeds.jsonl: rows without a prompt, not used: 1 (first: seeds.jsonl:2)",
        "seeds.jsonl: rows that repeat another, not used: 1 (first: seeds.jsonl:3)",
    ]


def test_a_file_without_a_prompt_is_refused(tmp_path: Path) -> None:
    """The message names the file and says what a seed row needs."""
    (tmp_path / "seeds.jsonl").write_text('{"instruction": ""}\n')
    with pytest.raises(StageError) as caught:
        read_seeds(Artifact(tmp_path / "seeds.jsonl", "records", "", "seeds.jsonl"), None, print)
    assert caught.value.message == "seeds.jsonl has no prompt to start from"
