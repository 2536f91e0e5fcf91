"""The folder that ``llmpipe compile`` writes: whole or not at all, wherever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpipe.api.compiling import _whole
from llmpipe.errors import UsageError


def test_an_empty_folder_stays_the_same_one(tmp_path: Path) -> None:
    """It may be a mount point, over which nothing can be renamed."""
    out = tmp_path / "out"
    out.mkdir()
    before = out.stat().st_ino
    with _whole(out) as draft:
        (draft / "run.sh").write_text("x")
        (draft / "data").mkdir()
    assert out.stat().st_ino == before
    assert sorted(p.name for p in out.iterdir()) == ["data", "run.sh"]


@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path: Path, there: bool) -> None:
    """An empty folder stays empty, a new one and its parents are gone."""
    out = tmp_path / "new" / "out"
    if there:
        out.mkdir(parents=True)

    def fail() -> None:
        with _whole(out) as draft:
            (draft / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.rglob("*")) == ([tmp_path / "new", out] if there else [])


@pytest.mark.parametrize("place", ["/proc/llmpipe-test/out", "{}/file/out", "{}/" + "n" * 300])
def test_a_folder_that_cannot_be_made_is_an_error_of_the_command(
    tmp_path: Path, place: str
) -> None:
    """With the system's reason, and without a traceback."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UsageError, match="cannot be written: ") as refused,
        _whole(Path(place.format(tmp_path))),
    ):
        raise AssertionError("not reached")
    assert refused.value.hint == "name a folder that you may write"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
