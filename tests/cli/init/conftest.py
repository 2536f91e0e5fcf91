"""Folders with documents and rows, in which the command is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from init_command import CHAT, FAQ, write_rows

from llmpipe.cli.init.data import SCHEMA


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that we stand in: documents in ``docs``, examples in two files.

    The schema of editors, which takes longer to make than a spec, is there already.
    """
    (tmp_path / SCHEMA).touch()
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    for name in ("a.md", "b.md", "deep/c.html", "picture.png"):
        (tmp_path / "docs" / name).write_text("# Title\n\nText.\n", "utf-8")
    (tmp_path / "docs" / "settings.json").write_text('[{"color": "red"}]', "utf-8")
    write_rows(tmp_path / "faq.jsonl", FAQ)
    write_rows(tmp_path / "chats.jsonl", [CHAT, CHAT])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def german(folder: Path) -> Path:
    """Rows whose columns do not tell by themselves, among documents."""
    rows = [{"frage": f"Wo {i}?", "antwort": "Da."} for i in range(9)]
    write_rows(folder / "docs" / "odd.jsonl", rows)
    return folder
