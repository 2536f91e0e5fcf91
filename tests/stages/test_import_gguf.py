"""The import stage, on the embedded GGUF."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.stages.import_gguf import ImportGguf, ImportGgufConfig

pytestmark = pytest.mark.heavy

CONFIG = ImportGgufConfig(kind="import_gguf", gguf="./m.gguf")


def context(gguf: Path, root: Path) -> StageContext[ImportGgufConfig]:
    out, work, journal, tools = (root / name for name in ("out", "work", "journal", "tools"))
    for folder in (out, work, journal, tools):
        folder.mkdir()
    inputs = {"gguf": Artifact(gguf, "gguf", "", gguf.name)}
    return StageContext(CONFIG, "base", inputs, out, work, journal, tools, root, threads=2)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_import_is_verified_and_repeatable(
    smollm2_gguf: Path, smollm2: Path, tmp_path: Path
) -> None:
    """The folder reads text as llama.cpp does; a second import gives the same bytes."""
    result = ImportGguf.run(context(smollm2_gguf, tmp_path))
    assert result.metrics["parity"] == "exact"
    assert digests(result.outputs["model"]) == digests(smollm2)


def test_broken_file(tmp_path: Path) -> None:
    """What is no GGUF is an error, and nothing is written."""
    broken = tmp_path / "m.gguf"
    broken.write_bytes(b"not a GGUF at all" * 10)
    ctx = context(broken, tmp_path)
    with pytest.raises(StageError, match=r"m\.gguf cannot be read as GGUF"):
        ImportGguf.run(ctx)
    assert list(ctx.out.iterdir()) == []


def test_ports() -> None:
    """The model descends from the GGUF."""
    ports = ImportGguf.ports(CONFIG)
    assert ports.default == "model"
    assert ports.outputs["model"].origin == "gguf"
