"""``llmpipe init`` as tests call it, and rows for it to find."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpipe.cli.main import main
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.model import Graph
from llmpipe.spec.read import read_spec

FAQ = [{"question": f"Where is {i}?", "answer": f"On shelf {i}."} for i in range(600)]
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]}


def write_rows(path: Path, rows: list[Any]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def init(*arguments: str) -> int:
    """Run the command without a person at the terminal."""
    return main(["init", *arguments])


def compiled(path: str = "spec.yaml") -> Graph:
    """Read what was written as every command would; it must be sound."""
    return compile_spec(read_spec(path))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run what is refused with 2, and return what is said; nothing may be written."""
    before = sorted(Path().rglob("*"))
    assert init(*arguments) == 2
    assert sorted(Path().rglob("*")) == before
    return capsys.readouterr().err
