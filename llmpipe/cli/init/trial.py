"""Findings that need the stages of a recipe: how its rows are split, and what it needs.

The recipe's own `format` stage splits the rows, in a temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError, UsageError
from llmpipe.formats.records import read_rows
from llmpipe.graph.model import Graph, StageNode
from llmpipe.graph.sources import LocalPath
from llmpipe.needs import SERVING, install_lines, packages, with_mends
from llmpipe.runner.needs import needs_of
from llmpipe.runner.project import Project
from llmpipe.runner.store import Store

MOST_ROWS = 200_000
"""Number of rows up to which they are split, in memory; for more, the result is estimated."""
LONGEST_SAMPLE = 300
"""Length of the longest question that a spec asks as a sample."""
BROUGHT = ("package", "data package", "program")
"""What a command installs, of all that a stage needs."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The findings of a recipe's stages."""

    needs: Sequence[str] = ()
    """The commands that install everything that the recipe needs."""
    missing: Sequence[str] = ()
    """The commands that install what is missing."""
    trained: int = 0
    """Number of rows for training; 0 if they were not split."""
    held_out: str | None = None
    """A held-out question that is not too long."""
    remarks: Sequence[str] = ()
    """What happened to the other rows, and the warnings of a run."""


def try_out(graph: Graph, *, parts: bool) -> Trial:
    """Ask the stages of a recipe what its commands need; with ``parts``, also split its rows.

    Raises:
        UsageError: Its rows cannot be used by the recipe.
    """
    with tempfile.TemporaryDirectory(prefix="llmpipe-init-") as folder:
        project = Project(graph, Store(Path(folder) / "store"))
        found = [needed.need for needed in needs_of(project, list(graph.nodes))]
        wanted = [need for need in (*found, *packages(*SERVING)) if need.what in BROUGHT]
        node = next((n for n in graph.nodes.values() if parts and n.kind == "format"), None)
        told = _Parted() if node is None else _parted(node, graph.spec.folder, Path(folder))
    absent = [replace(need, here=False) for need in wanted]
    return Trial(
        needs=install_lines(with_mends(absent)),
        missing=install_lines(n for n in with_mends(wanted) if not n.here),
        trained=told.kept.get("train", 0),
        held_out=told.question,
        remarks=told.remarks,
    )


@dataclass(slots=True)
class _Parted:
    """The result of splitting a recipe's rows."""

    kept: Mapping[str, int] = field(default_factory=dict)
    question: str | None = None
    remarks: list[str] = field(default_factory=list)


def _parted(node: StageNode, spec_dir: Path, folder: Path) -> _Parted:
    """Run a `format` stage and read its outputs."""
    warnings: list[str] = []

    def hear(event: Mapping[str, Any]) -> None:
        if event["event"] == "warning":
            warnings.append(event["message"])

    out, work = folder / "out", folder / "work"
    out.mkdir()
    work.mkdir()
    inputs = {
        port: Artifact(binding.source.path, binding.type, "", binding.label)
        for port, binding in node.bindings.items()
        if isinstance(binding.source, LocalPath)
    }
    context = StageContext(
        node.config, node.id, inputs, out, work, journal=folder, tools=folder,
        spec_dir=spec_dir, threads=1, emit=hear,
    )  # fmt: skip
    try:
        result = node.stage.run(context)
    except StageError as error:
        raise UsageError(error.message, hint=error.hint) from None
    dropped = [f"{count} {reason}" for reason, count in result.metrics["dropped"].items()]
    remarks = [f"skipped rows: {', '.join(dropped)}"] if dropped else []
    question = _first_question(result.outputs["test"])
    return _Parted(result.metrics["kept"], question, [*remarks, *warnings])


def _first_question(path: Path) -> str | None:
    """Return the first question of held-out chats that is short enough to be shown."""
    asked = (
        " ".join(turn["content"].split())
        for _, row in read_rows(path, path.name)
        for turn in row["messages"][:2]
        if turn["role"] == "user"
    )
    return next((text for text in asked if 0 < len(text) <= LONGEST_SAMPLE), None)
