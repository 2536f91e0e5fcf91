"""One graph, written for each tool: ten chains of trivial stages.

Every stage reads the file of the stage before it (the first of a chain reads a source file) and
writes one of its own: what it read, and its name. The last stage of the last chain also reads
``leaf.txt``; a change there concerns this stage alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHAINS = 10
LEAF = "leaf.txt"


@dataclass(frozen=True, slots=True)
class Link:
    """One stage. ``before`` is the stage whose file it reads; the first of a chain has none."""

    chain: int
    number: int
    is_leaf: bool

    @property
    def name(self) -> str:
        """Its name in every tool."""
        return f"c{self.chain}s{self.number}"

    @property
    def before(self) -> str | None:
        """The name of the stage before it."""
        return f"c{self.chain}s{self.number - 1}" if self.number else None

    @property
    def source(self) -> str:
        """The source file of its chain."""
        return f"source{self.chain}.txt"

    @property
    def files(self) -> list[str]:
        """The files that it reads, where a tool names them itself."""
        first = f"{self.before}.txt" if self.before else self.source
        return [first, LEAF] if self.is_leaf else [first]

    def command(self, reads: str, out: str) -> str:
        """Return its shell command, with files named as a tool wants them."""
        return f"cat {reads} > {out}; echo {self.name} >> {out}"


def links(stages: int) -> Iterator[Link]:
    """Return the stages, chain by chain; ``stages`` is a multiple of the number of chains."""
    length = stages // CHAINS
    for chain in range(CHAINS):
        for number in range(length):
            yield Link(chain, number, is_leaf=(chain, number) == (CHAINS - 1, length - 1))


def leaf_name(stages: int) -> str:
    """Name the stage that reads ``leaf.txt``."""
    return f"c{CHAINS - 1}s{stages // CHAINS - 1}"


def leaf_text(stages: int, leaf: str) -> str:
    """Return what the stage that reads ``leaf.txt`` is to write."""
    names = [link.name for link in links(stages) if link.chain == CHAINS - 1]
    return "\n".join([f"source {CHAINS - 1}", *names[:-1], leaf, names[-1], ""])


def write_leaf(folder: Path, text: str) -> None:
    """Write ``leaf.txt``."""
    (folder / LEAF).write_text(f"{text}\n")


def write_llmpipe(folder: Path, stages: int) -> None:
    """Write ``spec.yaml``: one ``command`` stage per link."""
    _write_sources(folder)
    rows = ["version: 1", "name: chains", "stages:"]
    for link in links(stages):
        inputs = {"before": link.before or f"./{link.source}"}
        if link.is_leaf:
            inputs["leaf"] = f"./{LEAF}"
        reads = " ".join(f"${{inputs.{name}}}" for name in inputs)
        rows.append(_stage_row(link.name, link.command(reads, "${outputs.out}"), inputs))
    (folder / "spec.yaml").write_text("\n".join(rows) + "\n")


def write_dvc(folder: Path, stages: int) -> None:
    """Write ``dvc.yaml``: one stage per link, its file kept in DVC's cache as is the default."""
    _write_sources(folder)
    rows = ["stages:"]
    for link in links(stages):
        out = f"{link.name}.txt"
        command = link.command(" ".join(link.files), out)
        stage = {"cmd": command, "deps": link.files, "outs": [out]}
        rows.append(f"  {link.name}: {json.dumps(stage)}")
    (folder / "dvc.yaml").write_text("\n".join(rows) + "\n")


def write_snakemake(folder: Path, stages: int) -> None:
    """Write a ``Snakefile``: one rule per link."""
    _write_sources(folder)
    every = list(links(stages))
    length = stages // CHAINS
    ends = ", ".join(repr(f"{link.name}.txt") for link in every[length - 1 :: length])
    rows = [f"rule all:\n    input: {ends}\n"]
    for link in every:
        reads = ", ".join(map(repr, link.files))
        command = link.command("{input}", "{output}")
        rows.append(
            f"rule {link.name}:\n"
            f"    input: {reads}\n"
            f"    output: '{link.name}.txt'\n"
            f"    shell: {command!r}\n"
        )
    (folder / "Snakefile").write_text("\n".join(rows))


def write_commands(folder: Path, stages: int) -> None:
    """Write ``commands.txt``: the same commands, one a line, in an order that works."""
    _write_sources(folder)
    rows = [link.command(" ".join(link.files), f"{link.name}.txt") for link in links(stages)]
    (folder / "commands.txt").write_text("\n".join(rows) + "\n")


def write_many_files(folder: Path, count: int) -> None:
    """Write a spec of one stage that reads a folder of ``count`` small files."""
    many = folder / "many"
    many.mkdir(parents=True)
    for i in range(count):
        (many / f"{i:06d}.txt").write_text(f"file {i}\n")
    row = _stage_row("count", "ls ${inputs.many} | wc -l > ${outputs.out}", {"many": "./many"})
    text = "\n".join(["version: 1", "name: many-files", "stages:", row, ""])
    (folder / "spec.yaml").write_text(text)


def _write_sources(folder: Path) -> None:
    folder.mkdir(parents=True)
    for chain in range(CHAINS):
        (folder / f"source{chain}.txt").write_text(f"source {chain}\n")
    write_leaf(folder, "leaf")


def _stage_row(name: str, run: str, inputs: dict[str, str]) -> str:
    stage: dict[str, Any] = {
        "kind": "command",
        "run": run,
        "inputs": inputs,
        "outputs": {"out": "out.txt"},
    }
    return f"  {name}: {json.dumps(stage)}"
