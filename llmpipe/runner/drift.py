"""What has drifted from the lock file: settings, input files, versions, and artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmpipe.errors import Problem, SpecError, UsageError
from llmpipe.graph.model import StageNode
from llmpipe.runner.plan import StagePlan, changes, describe
from llmpipe.runner.project import Project
from llmpipe.runner.store import KeyRecord


def check_locked(project: Project, plans: Mapping[str, StagePlan]) -> None:
    """Refuse a spec whose stages would be made of something else than the lock file says.

    Raises:
        UsageError: there is no lock for these profiles.
        SpecError: something has drifted; carries all that has.
    """
    lock = project.lock
    if not lock.exists:
        raise UsageError(
            f"{lock.path} has nothing for the profiles {lock.section!r}",
            hint="run without --locked first, and commit the lock file",
        )
    drifted = list(_drift(project, plans))
    if drifted:
        hint = "undo the change, or run without --locked and commit the new lock"
        problems = [Problem(f"not as in {lock.path.name}: {text}") for text in drifted]
        last = Problem(problems[-1].message, None, hint)
        raise SpecError([*problems[:-1], last])


def artifact_drift(project: Project, node: StageNode, record: KeyRecord) -> str | None:
    """Say which artifact is not the locked one, of a stage whose kind promises that it would be."""
    locked = project.lock.stage(node.id)
    if locked is None or node.stage.determinism != "exact":
        return None
    for name, output in record.outputs.items():
        wanted = locked["outputs"].get(name, {}).get("digest")
        if wanted != output.digest:
            was = wanted[:12] if wanted else "nothing"
            return f"its output {name!r} is {output.digest[:12]}; {was} is locked"
    return None


def _drift(project: Project, plans: Mapping[str, StagePlan]) -> Iterator[str]:
    nodes = project.graph.nodes
    for name, plan in plans.items():
        locked = project.lock.stage(name)
        if locked is None:
            yield f"{name} is not in it"
            continue
        pending = nodes[name].bindings.keys() - plan.made_of["inputs"].keys()
        for cause in changes(nodes[name], locked["made_of"], plan.made_of, pending):
            upstream = cause.get("stage")
            if upstream and nodes[upstream].stage.determinism != "exact":
                continue  # made here, from the same, but not promised to be the same bytes
            yield f"{name}: {describe(cause)}"
    for name in project.lock.stages():
        if name not in nodes:
            yield f"{name} is in it, but not in the spec"
