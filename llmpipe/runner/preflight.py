"""Check a spec against this machine and the installed tools, before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from llmpipe.canonical import leaves
from llmpipe.contracts import Finding, StageDefaults
from llmpipe.errors import MissingDependencyError, Problem, SpecError, StoreError
from llmpipe.graph.model import StageNode
from llmpipe.needs import Need
from llmpipe.runner.needs import Needed, needs_of, told_missing, with_paths
from llmpipe.runner.project import Project
from llmpipe.spec.load import place_in
from llmpipe.spec.model import Spec, StageSpec


def preflight(
    project: Project, stages: Collection[str], *, strict: bool, room: bool = False
) -> list[str]:
    """Check the named stages with the tools that they use; return the warnings.

    With ``strict``, as before a run, everything that is missing on this machine is one error,
    raised before any tool is asked. With ``room``, a disk that is too small is part of it. Findings
    that a stage reports itself (`Finding.in_run`) are then left to it.

    Raises:
        SpecError: A stage's settings are wrong, a tool would refuse them, the machine is too
            small, or a secret is not set.
        MissingDependencyError: ``strict``, and packages, programs or data are missing.
        StoreError: ``room``, and only disk space is missing.
    """
    spec, memo = project.graph.spec, project.store.memo
    told = _Told(before_run=strict)
    once = _declared(project, stages)
    told.warnings += (note for _, declared in once for note in declared.notes)
    sound = [(node, declared) for node, declared in once if _reviewed(node, declared, told, spec)]
    if strict:
        needed = [n for n in needs_of(project, stages) if n.blocks]
        told.missing = [n for n in needed if room or n.need.what != "disk"]
        told.problems += [n.problem for n in told.missing if n.problem]
        told.require()
    for node, declared in sound:
        told.take(declared, declared.stage.preflight(with_paths(node), spec.folder, memo))
    return told.result()


def _reviewed(node: StageNode, declared: StageSpec, told: _Told, spec: Spec) -> bool:
    """Check a stage without its tools; return whether nothing is wrong."""
    wrong = len(told.problems)
    told.take(declared, _findings(node, declared, spec))
    return len(told.problems) == wrong  # else a tool would report the same again


def _findings(node: StageNode, declared: StageSpec, spec: Spec) -> Iterator[Finding]:
    """Yield what a stage's own review finds, each field reviewed beside the file that contains it.

    A name in a spec that another one extends means what lies beside the former.
    """
    config = with_paths(node)
    written = msgspec.to_builtins(declared.config)
    places = (spec.folder_of(declared.locate(path)) for path, _ in leaves(written))
    for folder in dict.fromkeys([spec.folder, *places]):
        for finding in declared.stage.review(config, folder):
            where = spec.folder_of(declared.locate(finding.field))
            if folder == (spec.folder if finding.file else where):
                yield finding


def review(project: Project, stages: Collection[str]) -> list[str]:
    """Check the named stages without asking any tool; return the warnings.

    Raises:
        SpecError: A stage's settings are wrong.
    """
    told = _Told()
    for node, declared in _declared(project, stages):
        told.warnings += declared.notes
        if declared.stage.review is not StageDefaults.review:  # most kinds have no review
            told.take(declared, _findings(node, declared, project.graph.spec))
    return told.result()


def _declared(project: Project, stages: Collection[str]) -> list[tuple[StageNode, StageSpec]]:
    """Return the declarations of stages, each with one of its nodes.

    All points of a sweep share a declaration. Derived stages have none.
    """
    found = (project.graph.nodes[name] for name in stages)
    return list(
        {node.declared.id: (node, node.declared) for node in found if node.declared}.values()
    )


@dataclass(slots=True)
class _Told:
    """The findings so far, each with its place in the spec or in a file that the spec names."""

    before_run: bool = False
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    missing: list[Needed] = field(default_factory=list)

    def take(self, declared: StageSpec, findings: Iterable[Finding]) -> None:
        """Add the findings about a stage."""
        for finding in findings:
            if finding.in_run and self.before_run:
                continue
            if finding.missing and self.before_run:
                need = Need(finding.message, False, finding.hint or "", "program")
                self.missing.append(Needed(need, {declared.family: None}))
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
        """Return the warnings; raises like `require`."""
        self.require()
        return list(dict.fromkeys(self.warnings))

    def require(self) -> None:
        """Require that nothing is wrong and nothing is missing.

        Raises:
            SpecError: There are problems; missing needs are listed with them.
            MissingDependencyError: Something is missing.
            StoreError: Only disk space is missing.
        """
        lacking = [needed for needed in self.missing if needed.problem is None]
        problems = list(dict.fromkeys(self.problems))
        if problems:
            raise SpecError([*([told_missing(lacking)] if lacking else []), *problems])
        if lacking:
            told = told_missing(lacking)
            only_room = all(needed.need.what == "disk" for needed in lacking)
            error = StoreError if only_room else MissingDependencyError
            raise error(told.message, hint=told.hint)
