"""Ask the machine and the installed tools about a spec before anything runs."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator

import msgspec

from llmpipe.canonical import leaves
from llmpipe.contracts import SECRET, StageConfig
from llmpipe.errors import MissingDependencyError, Problem, SpecError
from llmpipe.graph.model import StageNode
from llmpipe.graph.sources import LocalGlob, LocalPath
from llmpipe.runner.fingerprint import replace_at
from llmpipe.runner.project import Project
from llmpipe.runner.resources import Machine, shortage
from llmpipe.spec.model import StageSpec


def preflight(project: Project, stages: Collection[str], *, strict: bool) -> list[str]:
    """Check the named stages with the tools that they use; give what could only be warned of.

    With ``strict``, as before a run, a tool that is not installed is an error, and so are needs
    that this machine will never meet and secrets that are not set.

    Raises:
        SpecError: a tool would refuse a stage's settings, the machine is too small, or a secret is
            not set.
        MissingDependencyError: ``strict``, and a tool is not installed.
    """
    warnings: list[str] = []
    folder, memo = project.graph.spec.folder, project.store.memo
    found = (project.graph.nodes[name] for name in stages)
    # at the points of a sweep the same declaration comes again; derived stages have none
    once = {node.declared.id: (node, node.declared) for node in found if node.declared}
    specs = [spec for _, spec in once.values()]
    problems = [*_shortages(specs), *_unset_secrets(specs)] if strict else []
    for node, declared in once.values():
        name = declared.family
        for finding in declared.stage.preflight(_with_paths(node), folder, memo):
            if finding.missing and strict:
                raise MissingDependencyError(f"stages.{name}: {finding.message}", hint=finding.hint)
            if finding.missing:
                warnings.append(f"stages.{name}: {finding.message}")
                continue
            path = ".".join(map(str, ("stages", name, *finding.field)))
            where = declared.locate(finding.field, key=True)
            problems.append(Problem(f"{path}: {finding.message}", where, finding.hint))
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    return warnings


def _with_paths(node: StageNode) -> StageConfig:
    """Give a stage's config with whole paths: each is relative to the file it is written in."""
    data = msgspec.to_builtins(node.config)
    for port, binding in node.bindings.items():
        if isinstance(binding.source, LocalPath):
            replace_at(data, node.ports.inputs[port].field, str(binding.source.path))
        elif isinstance(binding.source, LocalGlob):
            whole = binding.source.root / binding.source.pattern
            replace_at(data, node.ports.inputs[port].field, str(whole))
    return msgspec.convert(data, type(node.config))


def _shortages(specs: Iterable[StageSpec]) -> Iterator[Problem]:
    machine = Machine.here()
    for declared in specs:
        lacks = shortage(machine, declared.config)
        if lacks:
            resource, message = lacks
            where = declared.locate(("resources", resource))
            yield Problem(f"stages.{declared.family}.resources.{resource}: {message}", where)


def _unset_secrets(specs: Iterable[StageSpec]) -> Iterator[Problem]:
    """Name the secrets that stages will need and the environment does not hold."""
    for declared in specs:
        for path, value in leaves(msgspec.to_builtins(declared.config)):
            for name in SECRET.findall(value) if isinstance(value, str) else ():
                if not os.environ.get(name):
                    field = ".".join(map(str, ("stages", declared.family, *path)))
                    message = f"{field}: the secret {name} is not set"
                    hint = f"set it in the environment: export {name}=…"
                    yield Problem(message, declared.locate(path), hint)
