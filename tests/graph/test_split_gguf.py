"""A split GGUF in a spec: its first part stands for all, and what is wrong is said at its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmpipe.errors import SpecError
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.model import Graph
from llmpipe.graph.sources import LocalPath
from llmpipe.spec.read import read_spec

NAMES = tuple(f"m-{number:05d}-of-00003.gguf" for number in (1, 2, 3))

STAGES = {
    "import_gguf": "{kind: import_gguf, gguf: PATH}",
    "serve": "{kind: serve, model: PATH}",
    "export": "{kind: export, model: PATH, quantize: q8_0}",
    "format": "{kind: format, data: ./d.jsonl, tokenizer: PATH, max_tokens: 9}",
    "evaluate": "{kind: evaluate, models: [PATH], data: ./d.jsonl}",
    "rag": "{kind: rag, index: ./shipped, generator: {engine: llama.cpp, model: PATH}}",
    "generate": "{kind: generate, method: evol-instruct, seeds: ./d.jsonl, count: 1, "
    "teacher: {engine: llama.cpp, model: PATH}}",
    "command": "{kind: command, run: 'true', inputs: {m: PATH}, outputs: {o: o.txt}}",
}
"""Every kind that takes a GGUF, be it for a model that it derives."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spec's folder with the three parts of a GGUF; at this stage only names count."""
    for name in NAMES:
        (tmp_path / name).write_bytes(b"GGUF")
    (tmp_path / "d.jsonl").write_text("{}\n", "utf-8")
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "index.json").write_text("{}", "utf-8")
    return tmp_path


def compiled(folder: Path, path: str, stage: str = STAGES["import_gguf"]) -> Graph:
    """Compile a spec of one stage that names a GGUF."""
    text = f"version: 1\nname: x\nstages:\n  it: {stage.replace('PATH', path)}\n"
    (folder / "spec.yaml").write_text(text, "utf-8")
    return compile_spec(read_spec(folder / "spec.yaml"))


def refused(folder: Path, path: str, stage: str = STAGES["import_gguf"]) -> str:
    """Compile what is wrong; return what is said."""
    with pytest.raises(SpecError) as caught:
        compiled(folder, path, stage)
    return re.sub(r"\S*spec\.yaml", "spec.yaml", caught.value.render())


@pytest.mark.parametrize("kind", STAGES)
def test_the_first_part_is_taken_everywhere(folder: Path, kind: str) -> None:
    """Each kind is bound to the first part."""
    graph = compiled(folder, f"./{NAMES[0]}", STAGES[kind])
    sources = [source for node in graph.nodes.values() for source in node.sources()]
    assert LocalPath(folder / NAMES[0]) in sources


@pytest.mark.parametrize("kind", STAGES)
def test_a_missing_part_is_told_before_anything_runs(folder: Path, kind: str) -> None:
    """The missing files are named, at the line of the reference."""
    (folder / NAMES[1]).unlink()
    (folder / NAMES[2]).unlink()
    told = refused(folder, f"./{NAMES[0]}", STAGES[kind])
    assert "spec.yaml:4:" in told
    assert f"part 1 of 3 of a GGUF; missing next to it: {NAMES[1]}, {NAMES[2]}" in told


@pytest.mark.parametrize("kind", STAGES)
def test_another_part_names_the_first(folder: Path, kind: str) -> None:
    """A part alone is not a model; the hint can be copied."""
    told = refused(folder, f"./{NAMES[1]}", STAGES[kind])
    assert f"./{NAMES[1]} is part 2 of 3 of a GGUF" in told
    assert f"name the first part, which stands for all: ./{NAMES[0]}" in told


def test_the_derived_import_has_the_name_of_the_model(folder: Path) -> None:
    """It is called by the stem, not by the part."""
    assert "import_gguf:m" in compiled(folder, f"./{NAMES[0]}", STAGES["export"]).nodes


def test_links_as_in_the_cache_of_a_hub(folder: Path) -> None:
    """Links with the parts' names to files without: the links' names count."""
    (folder / "snapshot").mkdir()
    for number, name in enumerate(NAMES):
        (folder / name).rename(folder / f"blob{number}")
        (folder / "snapshot" / name).symlink_to(folder / f"blob{number}")
    graph = compiled(folder, f"./snapshot/{NAMES[0]}")
    assert next(graph.nodes["it"].sources()) == LocalPath(folder / "snapshot" / NAMES[0])


def test_a_link_by_another_name(folder: Path) -> None:
    """A link to the first part means the parts beside the file that it leads to."""
    (folder / "model.gguf").symlink_to(folder / NAMES[0])
    graph = compiled(folder, "./model.gguf")
    assert next(graph.nodes["it"].sources()) == LocalPath(folder / NAMES[0])


def test_a_command_cannot_write_one_part(folder: Path) -> None:
    """An output is one file: the other parts would be lost."""
    stage = f"{{kind: command, run: 'true', outputs: {{o: {NAMES[0]}}}}}"
    assert f"'{NAMES[0]}' is one of 3 parts of a GGUF" in refused(folder, "", stage)
