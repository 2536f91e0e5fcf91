"""Installing the programs that are kept apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpipe.backends import tools
from llmpipe.errors import MissingDependencyError, StoreError


def test_every_line_of_the_requirements_is_a_pin() -> None:
    """The file names versions and hashes only: no line that our reader would skip, no index."""
    lines = tools.REQUIREMENTS.read_text("utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    pins = tools.pins().values()
    assert wanted == [f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}" for pin in pins]


def test_status_before_and_after(tmp_path: Path) -> None:
    """A program counts as installed when the folder of its very version is there."""
    (before,) = tools.status(tmp_path)
    assert not before.installed
    before.path.mkdir()
    assert tools.status(tmp_path)[0].installed
    assert tools.install(tmp_path)[0].installed


@pytest.mark.slow
def test_wrong_hash_installs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip refuses what it cannot fetch or what has another hash; no half-made folder is left."""
    wheel = _wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    pin = tools.Pin("llmpipe-sample", "1.0", "0" * 64)
    monkeypatch.setattr(tools, "pins", lambda: {pin.name: pin})
    with pytest.raises(MissingDependencyError, match=r"llmpipe-sample 1\.0"):
        tools.install(tmp_path / "tools")
    assert list((tmp_path / "tools").iterdir()) == []


@pytest.mark.slow
def test_right_hash_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned wheel is unpacked into a folder of its own, named by name and version."""
    import hashlib

    wheel = _wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    pin = tools.Pin("llmpipe-sample", "1.0", digest)
    monkeypatch.setattr(tools, "pins", lambda: {pin.name: pin})
    (status,) = tools.install(tmp_path / "tools")
    assert status.installed
    assert (tmp_path / "tools" / "llmpipe-sample-1.0" / "sample.py").read_text() == "ANSWER = 42\n"
    assert len(list((tmp_path / "tools").iterdir())) == 1


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file where the folder should be is an error that names it."""
    (tmp_path / "tools").write_text("", "utf-8")
    with pytest.raises(StoreError, match="tools"):
        tools.install(tmp_path / "tools")


def _wheel(folder: Path) -> Path:
    """Make the smallest wheel that pip accepts."""
    import zipfile

    folder.mkdir()
    wheel = folder / "llmpipe_sample-1.0-py3-none-any.whl"
    info = "llmpipe_sample-1.0.dist-info"
    files = {
        "sample.py": "ANSWER = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: llmpipe-sample\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel
