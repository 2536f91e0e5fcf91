"""Ask the installed tools about a spec before anything runs."""

from __future__ import annotations

from collections.abc import Collection

from llmpipe.errors import MissingDependencyError, Problem, SpecError
from llmpipe.runner.project import Project


def preflight(project: Project, stages: Collection[str], *, strict: bool) -> list[str]:
    """Check the named stages with the tools that they use; give what could only be warned of.

    With ``strict``, a tool that is not installed is an error.

    Raises:
        SpecError: a tool would refuse a stage's settings.
        MissingDependencyError: ``strict``, and a tool is not installed.
    """
    problems: list[Problem] = []
    warnings: list[str] = []
    nodes = (project.graph.nodes[name] for name in stages)
    # at the points of a sweep the same declaration comes again; derived stages have none
    for declared in {node.declared.id: node.declared for node in nodes if node.declared}.values():
        name = declared.family
        folder, memo = project.graph.spec.folder, project.store.memo
        for finding in declared.stage.preflight(declared.config, folder, memo):
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
