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
def test_a_misspelt_column(tmp_path: Path, columns: SeedMap, message: str, hint: str) -> None:
    """Those that are there are named, and the nearest."""
    (tmp_path / "seeds.csv").write_text("prompt;system\nHow heavy is it?;Be brief.\n")
    source = Artifact(tmp_path / "seeds.csv", "records", "", "seeds.csv")
    assert len(read_seeds(source, SeedMap(user="prompt", system="system"))) == 1
    with pytest.raises(StageError) as caught:
        read_seeds(source, columns)
    assert (caught.value.message, caught.value.hint) == (message, f"did you mean {hint!r}?")
