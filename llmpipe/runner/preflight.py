"""Ask the machine and the installed tools about a spec before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from llmpipe.canonical import leaves
from llmpipe.contracts import SECRET, Finding, StageConfig, StageDefaults
from llmpipe.errors import MissingDependencyError, Problem, SpecError
from llmpipe.graph.model import StageNode
from llmpipe.graph.sources import LocalGlob, LocalPath
from llmpipe.runner.fingerprint import replace_at
from llmpipe.runner.project import Project
from llmpipe.runner.resources import Machine, shortage
from llmpipe.spec.load import place_in
from llmpipe.spec.model import StageSpec


def preflight(project: Project, stages: Collection[str], *, strict: bool) -> list[str]:
    """Check the named stages with the tools that they use; give what could only be warned of.

    With ``strict``, as before a run, a tool that is not installed is an error, and so are needs
    that this machine will never meet and secrets that are not set; what the stages will say
    themselves (`Finding.in_run`) is left to them.

    Raises:
        SpecError: a stage's settings are wrong, a tool would refuse them, the machine is too small,
            or a secret is not set.
        MissingDependencyError: ``strict``, and a tool is not installed.
    """
    folder, memo = project.graph.spec.folder, project.store.memo
    told = _Told(before_run=strict)
    once = _declared(project, stages)
    if strict:
        specs = [declared for _, declared in once]
        told.problems += [*_shortages(specs), *_unset_secrets(specs)]
    for node, declared in once:
        config, wrong = _with_paths(node), len(told.problems)
        told.take(declared, _judge(declared)(config, folder))
        if len(told.problems) > wrong:
            continue  # a tool would say the same again
        for finding in declared.stage.preflight(config, folder, memo):
            if finding.missing and strict:
                message = f"stages.{declared.family}: {finding.message}"
                raise MissingDependencyError(message, hint=finding.hint)
            told.take(declared, [finding])
    return told.result()


def review(project: Project, stages: Collection[str]) -> list[str]:
    """Judge the named stages without asking any tool; return what is only warned of.

    Raises:
        SpecError: a stage's settings are wrong.
    """
    told = _Told()
    for node, declared in _declared(project, stages):
        if _judge(declared) is not StageDefaults.review:  # most kinds have nothing to say
            told.take(declared, _judge(declared)(_with_paths(node), project.graph.spec.folder))
    return told.result()


def _declared(project: Project, stages: Collection[str]) -> list[tuple[StageNode, StageSpec]]:
    """Return the declarations of stages with a node of each.

    At the points of a sweep the same declaration comes again; derived stages have none.
    """
    found = (project.graph.nodes[name] for name in stages)
    return list(
        {node.declared.id: (node, node.declared) for node in found if node.declared}.values()
    )


def _judge(declared: StageSpec) -> Callable[[StageConfig, Path], list[Finding]]:
    """Return the kind's `Stage.review`, which one made for an older llmpipe does not have."""
    judge: Callable[[StageConfig, Path], list[Finding]]
    judge = getattr(declared.stage, "review", StageDefaults.review)
    return judge


@dataclass(slots=True)
class _Told:
    """What was found so far, each at its place in the spec or in a file that the spec names."""

    before_run: bool = False
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def take(self, declared: StageSpec, findings: Iterable[Finding]) -> None:
        """Add what was found of a stage."""
        for finding in findings:
            if finding.in_run and self.before_run:
                continue
            if finding.missing:
                self.warnings.append(f"stages.{declared.family}: {finding.message}")
                continue
            name = f"stages.{declared.family}"
            if finding.file is None:
                where = declared.locate(finding.field, key=True)
                path = ".".join(map(str, (name, *finding.field)))
            else:
                where = place_in(finding.file, finding.field)
                path = ".".join(map(str, finding.field)) or name
            message = f"{path}: {finding.message}"
            if finding.warning:
                hint = f" ({finding.hint})" if finding.hint else ""
                self.warnings.append(f"{where}: {message}{hint}")
            else:
                self.problems.append(Problem(message, where, finding.hint))

    def result(self) -> list[str]:
        """Return the warnings.

        Raises:
            SpecError: there are problems.
        """
        if self.problems:
            raise SpecError(list(dict.fromkeys(self.problems)))
        return list(dict.fromkeys(self.warnings))


def _with_paths(node: StageNode) -> StageConfig:
    """Give a stage's config with whole paths: each is relative to the file it is written in."""
    data = msgspec.json.decode(msgspec.json.encode(node.config))  # lists, which can be changed
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
