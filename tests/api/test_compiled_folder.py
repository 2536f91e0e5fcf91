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


def test_what_others_put_there_meanwhile_stays(tmp_path: Path) -> None:
    """Whether the folder fails, or is refused in the end because it is no longer empty."""
    out = tmp_path / "out"
    out.mkdir()

    def write(error: type[BaseException] | None) -> None:
        with _whole(out) as draft:
            (draft / "run.sh").write_text("ours")
            (out / "run.sh").write_text("theirs")
            (out / "data").mkdir()
            if error:
                raise error

    with pytest.raises(KeyboardInterrupt):
        write(KeyboardInterrupt)
    assert sorted(path.name for path in out.iterdir()) == ["data", "run.sh"]
    for path in out.iterdir():
        path.unlink() if path.is_file() else path.rmdir()
    with pytest.raises(UsageError, match="is not empty"):
        write(None)
    assert sorted(path.name for path in out.iterdir()) == ["data", "run.sh"]
    assert (out / "run.sh").read_text() == "theirs"


def test_a_move_that_fails_takes_back_what_it_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is empty again, and the system's reason is told."""
    (tmp_path / "out").mkdir()
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if any(target.parent.glob("[ab]")):
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    def write() -> None:
        with _whole(tmp_path / "out") as draft:
            for name in "ab":
                (draft / name).mkdir()
                (draft / name / "x").write_text("x")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(UsageError, match="cannot be written: Permission denied"):
        write()
    assert list((tmp_path / "out").iterdir()) == []


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
