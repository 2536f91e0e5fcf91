"""Collect everything that stages need on this machine, before anything runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from llmpipe.canonical import leaves
from llmpipe.contracts import (
    SECRET,
    EstimateContext,
    Estimates,
    Hardware,
    Needs,
    StageConfig,
)
from llmpipe.errors import MissingDependencyError, Problem
from llmpipe.graph.model import Binding, StageNode
from llmpipe.graph.sources import AbsentData, HubRepo, LocalGlob, LocalPath, StageOutput
from llmpipe.needs import Given, Need, data_need, install_lines, packages, with_mends
from llmpipe.runner.estimate import disk_free, disk_needed
from llmpipe.runner.fingerprint import replace_at
from llmpipe.runner.messages import size_text
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.remote import address_needs
from llmpipe.runner.resources import Machine, hardware_here, shortage
from llmpipe.spec.model import StageSpec

MISSING, HERE = "missing", "ok"
PACKAGE = "pkg://"


@dataclass(slots=True)
class Needed:
    """A need and the stages that have it. ``problem`` is set if the spec itself asks for it."""

    need: Need
    stages: dict[str, None] = field(default_factory=dict)
    problem: Problem | None = None

    @property
    def blocks(self) -> bool:
        """Return whether the run requires it and it is missing."""
        return not self.need.here and not self.need.advisory


def needs_of(project: Project, stages: Collection[str]) -> list[Needed]:
    """Return the needs of the named stages without duplicates, missing ones first."""
    found: dict[tuple[str, str, Problem | None], Needed] = {}
    machine = Machine.here()
    given = _Inputs(project)
    for node in (project.graph.nodes[name] for name in stages):
        name = node.declared.family if node.declared else node.derived_for or node.id
        for need, problem in _of_stage(node, given.of(node), machine):
            place = None if need.here else problem
            known = found.setdefault((need.what, need.name, place), Needed(need, problem=place))
            known.stages[name] = None
    for need in address_needs(project.remote_address) if project.remote_address else ():
        found.setdefault((need.what, need.name, None), Needed(need)).stages["cache"] = None
    estimates = estimates_of(project, stages)
    for name, need in _memory(estimates, machine.memory):
        found.setdefault((need.what, need.name, None), Needed(need)).stages[name] = None
    room = _room(project, stages, estimates)
    if room:
        found[room.what, room.name, None] = Needed(room)
    mended = with_mends(needed.need for needed in found.values())
    for needed, need in zip(found.values(), mended, strict=True):
        needed.need = need
    return sorted(found.values(), key=lambda needed: needed.need.here)


def _memory(estimates: Mapping[str, Needs], there: int) -> Iterator[tuple[str, Need]]:
    """Yield the memory of the stage that takes most, and of all that may run out of it."""
    known = {name: needs.memory for name, needs in estimates.items() if needs.memory is not None}
    most = max(known.values(), default=0)
    for name, size in known.items():
        if size == most or size > there:
            mend = f"this machine has {size_text(there)}: {name} may run out of it"
            label = f"about {size_text(size)} of memory"
            yield name, Need(label, size <= there, mend, "resource", advisory=True)


def estimates_of(
    project: Project,
    stages: Iterable[str],
    *,
    hardware: Hardware | None = None,
    depth: Literal["known", "gate", "full"] = "known",
    online: bool = False,
) -> dict[str, Needs]:
    """Return the estimated needs of the named stages whose kinds can estimate them.

    Args:
        project: The project of the stages.
        stages: Their names.
        hardware: The machine that would run them; this machine by default.
        depth: See `EstimateContext`.
        online: See `EstimateContext`.
    """
    given = _Inputs(project)
    asked = EstimateContext(hardware or hardware_here(), project.store.memo, depth, online)
    found = {}
    for node in (project.graph.nodes[name] for name in stages):
        if issubclass(node.stage, Estimates):
            last = {name: project.last_record(name) for name in node.upstream()}
            records = {name: record for name, record in last.items() if record is not None}
            sizes = project.input_sizes(node, records)
            inputs = {
                port: replace(known, size=sizes.get(port), metrics=_measured(node, port, records))
                for port, known in given.of(node).items()
            }
            found[node.id] = node.stage.estimate(with_paths(node), inputs, asked)
    return found


def _measured(node: StageNode, port: str, records: Mapping[str, KeyRecord]) -> Mapping[str, object]:
    """Return what the stage behind a port measured in its last run."""
    source = node.bindings[port].source
    record = records.get(source.stage) if isinstance(source, StageOutput) else None
    return {} if record is None else record.metrics


def require_installed(project: Project, stage: str, more: Iterable[str] = ()) -> None:
    """Check all packages and programs of a stage that is about to be served or asked.

    ``more`` are packages for the serving itself.

    Raises:
        MissingDependencyError: Some are missing; the error names all of them.
    """
    asked = [n for n in needs_of(project, [stage]) if n.need.what in ("package", "program")]
    known = {needed.need.name for needed in asked}
    asked += [Needed(n, {stage: None}) for n in packages(*more) if n.name not in known]
    missing = [needed for needed in asked if needed.blocks]
    for needed, need in zip(missing, with_mends(n.need for n in missing), strict=True):
        needed.need = need
    if missing:
        told = told_missing(missing, begun="nothing was started")
        raise MissingDependencyError(told.message, hint=told.hint)


def told_missing(missing: Sequence[Needed], begun: str = "nothing has run") -> Problem:
    """Return the missing needs as a problem, with the table as its hint."""
    count = len(missing)
    things = "1 requirement is" if count == 1 else f"{count} requirements are"
    lines = table(missing)
    if count > 1:
        commands = install_lines(needed.need for needed in missing)
        lines += ["all of it:", *(f"  {command}" for command in commands)]
    return Problem(f"{things} missing; {begun}", hint="\n".join(lines))


def table(rows: Iterable[Needed], *, states: bool = False) -> list[str]:
    """Return one line for each need: what it is, its state, its stages, how to install it."""
    cells = [
        (
            needed.need.label,
            *((HERE if needed.need.here else MISSING,) if states else ()),
            _shown(needed.stages),
            "" if needed.need.here else needed.need.mend,
        )
        for needed in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def _shown(stages: Iterable[str]) -> str:
    names = list(stages)
    more = f" and {len(names) - 3} more" if len(names) > 4 else ""
    return ", ".join(names[: 3 if more else 4]) + more


def _of_stage(
    node: StageNode, inputs: Mapping[str, Given], machine: Machine
) -> Iterator[tuple[Need, Problem | None]]:
    """Yield the needs of a stage: of its kind, its inputs, its resources and its secrets."""
    for need in node.stage.needs(with_paths(node), inputs):
        yield need, None
    for binding in node.bound():
        if binding.label.startswith(PACKAGE):
            package = binding.label.removeprefix(PACKAGE).partition("/")[0]
            yield data_need(package, here=not isinstance(binding.source, AbsentData)), None
        elif isinstance(binding.source, HubRepo):
            yield from ((need, None) for need in packages("huggingface-hub"))
    if node.declared:
        yield from _of_resources(node.declared, machine)
        yield from _of_secrets(node.declared)


def _of_resources(declared: StageSpec, machine: Machine) -> Iterator[tuple[Need, Problem | None]]:
    lacks = shortage(machine, declared.config)
    gpus = declared.config.resources.gpus or 0
    if lacks:
        resource, message = lacks
        where = declared.locate(("resources", resource))
        text = f"stages.{declared.family}.resources.{resource}: {message}"
        name = (
            _gpus(gpus) if resource == "gpus" else f"{declared.config.resources.memory} of memory"
        )
        yield Need(name, False, f"{where}: {message}", "resource"), Problem(text, where)
    elif gpus:
        yield Need(_gpus(gpus), True, what="resource"), None


def _gpus(count: int) -> str:
    return f"{count} GPU{'s' * (count > 1)}"


def _of_secrets(declared: StageSpec) -> Iterator[tuple[Need, Problem | None]]:
    """Yield the secrets that a stage needs."""
    for path, value in leaves(msgspec.to_builtins(declared.config)):
        for name in SECRET.findall(value) if isinstance(value, str) else ():
            here = bool(os.environ.get(name))
            text = f"{'.'.join(map(str, ('stages', declared.family, *path)))}: "
            hint = f"set it in the environment: export {name}=…"
            problem = Problem(f"{text}the secret {name} is not set", declared.locate(path), hint)
            yield Need(name, here, f"export {name}=…", "secret"), problem


def _room(project: Project, stages: Collection[str], estimates: Mapping[str, Needs]) -> Need | None:
    """Return the disk space that stages will fill, as far as it is known."""
    new = [name for name in stages if project.last_record(name) is None]
    of_new = {name: estimates[name] for name in new if name in estimates}
    estimated = {name: e.disk for name, e in of_new.items() if e.disk is not None}
    needed = disk_needed(project, [name for name in stages if name not in estimated])
    needed += max((e.temporary or 0 for e in of_new.values()), default=0)
    needed, free = needed + sum(estimated.values()), disk_free(project)
    if not needed:
        return None
    has_run = any(map(project.last_record, stages))
    why = (
        f"the stages to run made {size_text(needed)} last time" if has_run else "models to be made"
    )
    mend = f"{why}; {size_text(free)} are free: run llmpipe gc, or continue with --yes"
    unknown = any(estimated.get(name) is None for name in new)  # such a stage counts too little
    label = f"{'at least ' if unknown else ''}{size_text(needed)} of disk"
    return Need(label, needed <= free, mend, "disk")


def with_paths(node: StageNode) -> StageConfig:
    """Return a stage's config with absolute paths; each is relative to its file."""
    data = msgspec.json.decode(msgspec.json.encode(node.config))  # lists, not tuples
    for port, binding in node.bindings.items():
        if isinstance(binding.source, LocalPath):
            replace_at(data, node.ports.inputs[port].field, str(binding.source.path))
        elif isinstance(binding.source, LocalGlob):
            whole = binding.source.root / binding.source.pattern
            replace_at(data, node.ports.inputs[port].field, str(whole))
    return msgspec.convert(data, type(node.config))


class _Inputs:
    """What is known of the inputs of stages. Each stage is examined once."""

    def __init__(self, project: Project) -> None:
        self.nodes = project.graph.nodes
        self.folder = project.graph.spec.folder
        self._known: dict[str, dict[str, Given]] = {}

    def of(self, node: StageNode) -> Mapping[str, Given]:
        """Return what is known of the inputs of a stage, by port."""
        waiting = [node]
        while waiting:  # a chain of stages may be longer than Python's stack
            last = waiting[-1]
            before = [self.nodes[s] for s in last.upstream() if s not in self._known]
            if before:
                waiting += before
            else:
                waiting.pop()
                self._known[last.id] = {p: self._given(b) for p, b in last.bindings.items()}
        return self._known[node.id]

    def _given(self, binding: Binding) -> Given:
        source = binding.source
        if isinstance(source, StageOutput):
            config = self.nodes[source.stage].config
            inputs = self._known[source.stage]
            return Given(binding.type, output=source.output, config=config, inputs=inputs)
        folder = self.folder
        if isinstance(source, LocalPath):
            return Given(binding.type, source.path, folder=folder)
        if isinstance(source, LocalGlob):
            return Given(binding.type, source.root, source.pattern, folder=folder)
        if isinstance(source, AbsentData):
            return Given(binding.type, Path(source.package, source.inner))
        return Given(binding.type, repo=source.repo, revision=source.revision)
