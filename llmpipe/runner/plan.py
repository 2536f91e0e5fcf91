"""The plan as data: every stage is cached, or will run for the causes listed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, Literal

from llmpipe.canonical import digest
from llmpipe.gguf_parts import part_of
from llmpipe.graph.model import Binding, StageNode
from llmpipe.graph.sources import AbsentData, HubRepo, LocalGlob, StageOutput
from llmpipe.patterns import split_pattern
from llmpipe.registry import KINDS, packages_of
from llmpipe.runner.estimate import Scale
from llmpipe.runner.fingerprint import ingredients
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord

Cause = dict[str, Any]
"""A reason to run a stage.

``cause`` is one of new, config, file, upstream, tool, version, missing, damaged, forced,
unresolved. The other fields tell what changed, from ``old`` to ``new``.
"""

NAMED_FILES = 3
"""Number of files of a folder that a cause names."""

FilesOf = Callable[[str], Mapping[str, str] | None]
"""Returns the files of a folder by its digest, each with what identifies its content, if known."""

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The plan for one stage. ``key`` is None while the content of an input is unknown.

    ``factor`` compares the work of the stage with its last run, and ``seconds`` is the expected
    duration; each is None if unknown. A stage that is ``kept`` counts as cached, whatever its
    ``causes`` are. ``lacks`` names the optional outputs that a cached stage was made without.
    """

    id: str
    kind: str
    status: Literal["cached", "run"]
    key: str | None
    key_inputs: Mapping[str, Any]
    causes: list[Cause] = field(default_factory=list)
    record: KeyRecord | None = None
    derived_for: str | None = None
    factor: float | None = None
    seconds: float | None = None
    kept: bool = False
    lacks: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the plan of the stage as ``llmpipe plan --json`` prints it."""
        data: dict[str, Any] = {
            "kind": self.kind,
            "status": self.status,
            "key": self.key,
            "causes": self.causes,
            "seconds": self.seconds,
        }
        if self.derived_for:
            data["derived_for"] = self.derived_for
        if self.kept:
            data["kept"] = True
        if self.lacks:
            data["lacks"] = [*self.lacks]
        return data


def make_plan(
    project: Project, forced: Collection[str] = (), kept: Collection[str] = ()
) -> dict[str, StagePlan]:
    """Plan every stage, in execution order."""
    plans: dict[str, StagePlan] = {}
    records: dict[str, KeyRecord] = {}
    factors: dict[str, float | None] = {}
    for node in project.graph.nodes.values():
        plan = plan_stage(
            project, node, records, forced=node.id in forced, kept=node.id in kept, factors=factors
        )
        plans[node.id] = plan
        if plan.status == "run":
            factors[node.id] = plan.factor
        if plan.status == "cached" and plan.record is not None:
            records[node.id] = plan.record
    return plans


def plan_stage(
    project: Project,
    node: StageNode,
    records: Mapping[str, KeyRecord],
    *,
    forced: bool = False,
    kept: bool = False,
    factors: Mapping[str, float | None] = MappingProxyType({}),
) -> StagePlan:
    """Plan one stage, given the known records of the stages before it.

    ``kept`` treats the last artifacts as fresh, as ``freeze`` in the config does. ``factors`` are
    those of the stages before it that will run.
    """
    inputs = {
        port: project.input_fingerprint(binding, records) for port, binding in node.bindings.items()
    }
    known = {port: found for port, found in inputs.items() if found is not None}
    pending = [port for port, found in inputs.items() if found is None]
    key_inputs = ingredients(node, known, lambda: project.last_ingredients(node.id))
    key = None if pending else digest(key_inputs)
    record = project.store.record(key) if key else None
    causes = list(_causes(project, node, key_inputs, key, record, pending))
    if forced:
        causes.append({"cause": "forced"})
    if not causes:
        return StagePlan(
            node.id, node.kind, "cached", key, key_inputs, [], record, node.derived_for,
            lacks=_lacks(node, record),
        )  # fmt: skip
    last = project.last_record(node.id)
    factor = (
        Scale(project, node, last, key_inputs, records, factors).factor(causes) if last else None
    )
    seconds = last.seconds * factor if last and factor is not None else None
    if (kept or node.config.freeze) and not forced and last and _fits(project, node, last):
        return StagePlan(
            node.id, node.kind, "cached", last.key, key_inputs, causes, last, node.derived_for,
            factor, last.seconds, kept=True, lacks=_lacks(node, last),
        )  # fmt: skip
    return StagePlan(
        node.id,
        node.kind,
        "run",
        key,
        key_inputs,
        causes,
        record,
        node.derived_for,
        factor,
        seconds,
    )


def _lacks(node: StageNode, record: KeyRecord | None) -> tuple[str, ...]:
    return tuple(n for n in node.ports.outputs if record is not None and n not in record.outputs)


def _fits(project: Project, node: StageNode, record: KeyRecord) -> bool:
    """Return whether the last artifacts exist and include all outputs that are needed now."""
    return record.kind == node.kind and not project.store.missing(
        record, project.graph.required_outputs(node.id)
    )


def _causes(
    project: Project,
    node: StageNode,
    key_inputs: Mapping[str, Any],
    key: str | None,
    record: KeyRecord | None,
    pending: Collection[str],
) -> Iterator[Cause]:
    """Yield every reason why a stage is not fresh."""
    if record is not None:
        for output in project.store.missing(record, project.graph.required_outputs(node.id)):
            yield {"cause": "missing", "output": output}
        return
    if key is not None and (wrong := project.store.record_damage(key)):
        yield {"cause": "damaged", "problem": wrong}
        return
    last = project.last_ingredients(node.id)
    found = [] if last is None else list(changes(node, last, key_inputs, project.files_of, pending))
    yield from found
    yield from _pending_causes(node, pending)
    if last is None and not pending:
        yield {"cause": "new"}
    elif not found and not pending:
        yield {"cause": "missing", "output": "all"}


def _pending_causes(node: StageNode, ports: Collection[str]) -> list[Cause]:
    found: dict[str, Cause] = {}
    for port in ports:
        binding = node.bindings[port]
        while binding.base is not None and not isinstance(binding.source, StageOutput):
            binding = binding.base
        if isinstance(binding.source, HubRepo | AbsentData):
            name = binding.label
            if isinstance(binding.source, HubRepo):
                name = binding.source.repo
            found[name] = {"cause": "unresolved", "path": name}
        elif isinstance(binding.source, StageOutput):
            stage = binding.source.stage
            found[stage] = {"cause": "upstream", "stage": stage, "pending": True}
    return list(found.values())


def changes(
    node: StageNode,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    files_of: FilesOf,
    pending: Collection[str] = (),
) -> Iterator[Cause]:
    """List every difference between what a stage was made from and what it would be made from.

    ``files_of`` returns the files of a folder.
    """
    if old.get("kind") != new["kind"]:
        field = f"stages.{node.family}.kind"
        yield {"cause": "config", "field": field, "old": old.get("kind"), "new": new["kind"]}
    elif (old.get("version"), old.get("record")) != (new["version"], new["record"]):
        versions = {"old": old.get("version"), "new": new["version"]}
        package = {} if node.kind in KINDS else {"package": packages_of(node.kind)}
        yield {"cause": "version", **versions, **package}
    for path, before, after in _differences(old.get("config", {}), new["config"]):
        yield {
            "cause": "config",
            "field": ".".join(("stages", node.family, *path)),
            "old": before,
            "new": after,
        }
    for port in new["inputs"]:
        before = old.get("inputs", {}).get(port)
        if port not in pending and before != new["inputs"][port]:
            binding = node.bindings[port]
            if isinstance(binding.source, StageOutput):
                yield {"cause": "upstream", "stage": binding.source.stage, "pending": False}
            else:
                told = _files(binding, before, new["inputs"][port], files_of) if before else {}
                yield {"cause": "file", "path": binding.label, **told}
    for port in old.get("inputs", {}):
        if port.endswith("]") and port not in node.bindings:  # a point that the sweep has no more
            field = f"stages.{node.family}.{port}"
            yield {"cause": "config", "field": field, "old": {"input": port}, "new": None}
    for tool, version in new["tools"].items():
        before = old.get("tools", {}).get(tool)
        if before != version:
            yield {"cause": "tool", "tool": tool, "old": before, "new": version}


def _files(
    binding: Binding, old: Mapping[str, Any], new: Mapping[str, Any], files_of: FilesOf
) -> dict[str, Any]:
    """Return how the files of a folder changed, as far as known; a few are named."""
    before, after = files_of(old.get("digest", "")), files_of(new["digest"])
    if before is None or after is None or before == after:
        return {}
    became = {
        **{name: "changed" for name in after if before.get(name, after[name]) != after[name]},
        **dict.fromkeys(after.keys() - before.keys(), "added"),
        **dict.fromkeys(before.keys() - after.keys(), "removed"),
    }
    beginning = _beginning(binding)
    named = sorted(became, key=lambda name: (became[name] != "changed", became[name], name))
    files = {_spoken(beginning + name): became[name] for name in named[:NAMED_FILES]}
    return {"files": files, "more": len(became) - len(files)}


def _beginning(binding: Binding) -> str:
    """Return the prefix shared by the names of the files of a folder, or of a split GGUF."""
    label = binding.label
    part = part_of(label)
    if part is not None:
        return part.stem
    folder = split_pattern(label)[0] if isinstance(binding.source, LocalGlob) else label
    return f"{folder.rstrip('/')}/"


def _spoken(path: str) -> str:
    """Return a printable name of a file, whatever bytes it holds."""
    path = path.removeprefix("./")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in path)


def _differences(
    old: Any, new: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Compare two JSON values and yield each leaf that differs; an absent one is None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *old]):
            yield from _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), (*path, key))
    elif isinstance(old, list) and isinstance(new, list):
        for i, (before, after) in enumerate(zip_longest(old, new, fillvalue=_ABSENT)):
            yield from _differences(before, after, (*path, str(i)))
    elif old != new:
        yield path, None if old is _ABSENT else old, None if new is _ABSENT else new
