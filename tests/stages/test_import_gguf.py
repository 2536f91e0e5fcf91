"""The import stage, on the embedded GGUF."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from gguf_files import Tensors, rewrite

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
    predictions = result.metrics["predictions"]
    assert 0 < predictions["mean_kl"] < predictions["limits"]["mean_kl"] == 0.02
    assert predictions["same_first"] > 0.8
    assert digests(result.outputs["model"]) == digests(smollm2)


def test_split_file_is_imported_whole(sharp_llama: Path, tmp_path: Path) -> None:
    """Of three parts the same model comes as of one file; nothing is left of the joined file."""
    first = rewrite(sharp_llama / "f16.gguf", tmp_path / "m.gguf", tensors_a_part=8)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = ImportGguf.run(context(sharp_llama / "f16.gguf", tmp_path / "whole"))
    ctx = context(first, tmp_path / "parts")
    parts = ImportGguf.run(ctx)
    assert digests(parts.outputs["model"]) == digests(whole.outputs["model"])
    assert not list(ctx.work.glob("*.gguf"))
    assert parts.metrics["vocabulary"] == 49152


def test_frequency_factors_that_are_lost(sharp_llama: Path, tmp_path: Path) -> None:
    """What is left out is said; where that changes the predictions, the import fails."""

    def add(tensors: Tensors) -> None:
        import numpy as np
        from gguf import GGMLQuantizationType

        factors = np.array([1, 1, 1, 1, 8, 8, 8, 8], np.float32)
        tensors["rope_freqs.weight"] = factors, GGMLQuantizationType.F32

    gguf = rewrite(sharp_llama / "f16.gguf", tmp_path / "m.gguf", change=add)
    ctx = context(gguf, tmp_path)
    events: list[Any] = []
    ctx.emit = events.append
    with pytest.raises(StageError, match="predicts differently than llama"):
        ImportGguf.run(ctx)
    assert any("rope_freqs.weight" in event.get("message", "") for event in events)


def test_broken_file(tmp_path: Path) -> None:
    """What is not a GGUF is an error, and nothing is written."""
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
