"""Write what a stage would run, so that it runs without llmpipe; show its first rows."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.api.stored import Advice
from llmpipe.contracts import Artifact, Compilable, Showable, StageContext, Target
from llmpipe.errors import StageError, StoreError, UsageError
from llmpipe.graph.model import Binding, StageNode
from llmpipe.graph.sources import HubRepo
from llmpipe.runner.plan import make_plan
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.redact import Redactor, secret_values
from llmpipe.runner.resources import Machine

HERE = Target()
"""A folder for this machine."""


def compile_stage(
    project: Project, node: StageNode, out: Path, advice: Advice, target: Target
) -> list[str]:
    """Write into a new folder what a stage would run; return what is worth knowing about it.

    If anything fails, no folder is left. A model of the hub is not downloaded for a `target` with a
    device.

    Raises:
        UsageError: the kind runs inside llmpipe, or the folder is not empty.
        StageError: the stage's settings are wrong.
        StoreError: what the stage needs is not up to date.
    """
    if not issubclass(node.stage, Compilable):
        raise UsageError(
            f"a stage of kind {node.kind} runs inside llmpipe: there is nothing to compile"
        )
    with _writable(out):
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out} is a file", hint="name a new folder")
        _require_empty(out)
    notes: list[str] = []
    out = out.absolute()
    target = dataclasses.replace(target, folder=out)
    with _context(project, node, advice, notes, target) as context, _whole(out) as draft:
        told = node.stage.compile_to(context, draft)
        return [*notes, *told]


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
            f"a stage of kind {node.kind} has no rows to show",
            hint="name a stage that trains or generates",
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
def _whole(out: Path) -> Iterator[Path]:
    """Yield a folder whose files are those of ``out`` in the end; leave nothing if anything fails.

    A folder that is there already stays the same one: it may be a mount point, or lie in a folder
    that cannot be written. What others put into it meanwhile stays.

    Raises:
        UsageError: the folder cannot be made or written, or is no longer empty.
    """
    with _writable(out):
        out = out.resolve()  # a link to a folder stays one
        new = [folder for folder in out.parents if not folder.exists()]
        there = out.exists()
    draft = (out / f".{os.getpid()}") if there else out.with_name(f".{out.name}.{os.getpid()}")
    moved: list[Path] = []
    try:
        with _writable(out):
            draft.parent.mkdir(parents=True, exist_ok=True)
            draft.mkdir()
        yield draft
        with _writable(out):
            if not there:
                draft.rename(out)
                return
            _require_empty(out, but=draft)
            for file in [*draft.iterdir()]:
                moved.append(file.rename(out / file.name))
            draft.rmdir()
    except BaseException:
        for path in (*moved, draft):
            _remove(path)
        with contextlib.suppress(OSError):
            for folder in new:
                folder.rmdir()
        raise


def _require_empty(out: Path, but: Path | None = None) -> None:
    """Require that a folder has nothing in it, ``but`` one thing.

    Raises:
        UsageError: it has.
    """
    if out.exists() and any(path != but for path in out.iterdir()):
        raise UsageError(f"{out} is not empty", hint="name a new folder")


def _remove(path: Path) -> None:
    """Remove a file or a folder, as far as the system lets us."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def _writable(out: Path) -> Iterator[None]:
    """Turn the system's refusals into an error about the folder."""
    try:
        yield
    except OSError as error:
        message = f"{out} cannot be written: {error.strerror or error}"
        raise UsageError(message, hint="name a folder that you may write") from None


@contextmanager
def _context(
    project: Project,
    node: StageNode,
    advice: Advice,
    notes: list[str],
    target: Target = HERE,
) -> Iterator[StageContext[Any]]:
    """Yield a stage's context in a folder for the time being; its warnings go to ``notes``.

    Raises:
        StoreError: what the stage needs is not up to date.
    """
    plans = make_plan(project)
    plan = plans[node.id]
    named = {p: b for p, b in node.bindings.items() if target.device and _on_the_hub(b)}
    rest = {port: bound for port, bound in node.bindings.items() if port not in named}
    if plan.key is None and not rest.keys() <= plan.key_inputs["inputs"].keys():
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
            dataclasses.replace(node, bindings=rest),
            plan.key or "",
            plan.key_inputs,
            records,
            log=Path(scratch) / "log",
        )
        request = msgspec.structs.replace(request, threads=Machine.here().cpus)
        context = request.context(Path(scratch), Path(scratch), note, project.store)
        kept = {port: _named(project, bound, records) for port, bound in named.items()}
        yield dataclasses.replace(context, inputs={**context.inputs, **kept}, target=target)


def _on_the_hub(binding: Binding) -> bool:
    """Return whether a model, or the model below an adapter, is on the hub."""
    if isinstance(binding.source, HubRepo):
        return not binding.source.holds_rows
    return binding.base is not None and _on_the_hub(binding.base)


def _named(project: Project, binding: Binding, records: Mapping[str, KeyRecord]) -> Artifact:
    """Return an input without downloading what the hub has of it: that keeps its id."""
    source = binding.source
    base = _named(project, binding.base, records) if binding.base else None
    if isinstance(source, HubRepo):
        revision = source.revision or project.commit_of(source)
        hub = f"{source.repo}@{revision}" if revision else source.repo
        return Artifact(Path(source.repo), binding.type, "", binding.label, base, hub=hub)
    alone = dataclasses.replace(binding, base=None)
    shape = project.input_fingerprint(alone, records)
    assert shape is not None  # it is up to date, as all that is not on the hub
    here = project.input_request(alone, shape, records).artifact(project.store.objects)
    return dataclasses.replace(here, base=base)
