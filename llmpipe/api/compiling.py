"""Write what a stage would run, so that it runs without llmpipe; show the rows it trains on."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.api.stored import Advice
from llmpipe.contracts import Compilable, Showable, StageContext
from llmpipe.errors import StageError, StoreError, UsageError
from llmpipe.graph.model import StageNode
from llmpipe.runner.plan import make_plan
from llmpipe.runner.project import Project
from llmpipe.runner.redact import Redactor, secret_values
from llmpipe.runner.resources import Machine


def compile_stage(project: Project, node: StageNode, out: Path, advice: Advice) -> list[str]:
    """Write into a new folder what a stage would run; return what is worth knowing about it.

    Raises:
        UsageError: the kind runs inside llmpipe, or the folder is not empty.
        StoreError: what the stage needs is not up to date.
    """
    if not issubclass(node.stage, Compilable):
        raise UsageError(
            f"a stage of kind {node.kind} runs inside llmpipe: there is nothing to compile"
        )
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file", hint="name a new folder")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty", hint="name a new folder")
    notes: list[str] = []
    with _context(project, node, advice, notes) as context:
        return [*notes, *node.stage.compile_to(context, out.absolute())]


def show_rows(
    project: Project, node: StageNode, rows: int, advice: Advice
) -> tuple[list[str], list[str]]:
    """Return the first rows of a stage as texts, and what is worth knowing about them.

    Raises:
        UsageError: the kind shows no rows.
        StoreError: what the stage needs is not up to date.
    """
    if not issubclass(node.stage, Showable):
        raise UsageError(
            f"a stage of kind {node.kind} has no rows to show", hint="name a stage that trains"
        )
    notes: list[str] = []
    with _context(project, node, advice, notes) as context:
        try:
            return node.stage.show_rows(context, rows), notes
        except StageError as error:  # it may quote what a process printed that knows secrets
            redactor = Redactor(secret_values(msgspec.to_builtins(node.config)))
            hint = redactor.in_json(error.hint)
            raise StageError(redactor.in_json(error.message), hint=hint) from None


@contextmanager
def _context(
    project: Project, node: StageNode, advice: Advice, notes: list[str]
) -> Iterator[StageContext[Any]]:
    """Yield a stage's context in a folder for the time being; its warnings go to ``notes``.

    Raises:
        StoreError: what the stage needs is not up to date.
    """
    plans = make_plan(project)
    plan = plans[node.id]
    if plan.key is None:
        missing = [name for name in node.upstream() if plans[name].status == "run"]
        raise StoreError(
            f"{node.id} needs {', '.join(missing) or 'what is not looked up yet'}",
            hint=advice.make(*missing) if missing else None,
        )
    records = {name: p.record for name, p in plans.items() if p.record is not None}

    def note(event: Mapping[str, Any]) -> None:
        if event["event"] == "warning":
            notes.append(event["message"])

    with tempfile.TemporaryDirectory() as scratch:
        request = project.request(
            node,
            plan.key,
            plan.key_inputs,
            records,
            log=Path(scratch) / "log",
        )
        request = msgspec.structs.replace(request, threads=Machine.here().cpus)
        yield request.context(Path(scratch), Path(scratch), note)
