"""Compare a spec with its lock file: settings, input files, versions and artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmpipe.errors import MOST_PROBLEMS, Problem, SpecError, UsageError
from llmpipe.graph.model import StageNode
from llmpipe.graph.sources import StageOutput
from llmpipe.runner.lockfile import LockedStage, LockFile
from llmpipe.runner.messages import describe
from llmpipe.runner.plan import StagePlan, changes
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord


def check_locked(project: Project, plans: Mapping[str, StagePlan]) -> None:
    """Refuse a spec whose settings, input files or versions differ from the lock file.

    Raises:
        UsageError: The lock file has no section for these profiles.
        SpecError: Something differs. The error carries every difference.
    """
    lock = project.lock
    lock.check()
    if not lock.exists:
        raise UsageError(
            f"{lock.path} has no section for the profiles {lock.section!r}"
            if lock.path.exists()
            else f"there is no lock file {lock.path}",
            hint="run without --locked first, and commit the lock file",
        )
    drifted = list(_drift(project, plans))
    if drifted:
        hint = "undo the change, or run without --locked and commit the new lock"
        problems = [Problem(f"not as in {lock.path.name}: {text}") for text in drifted]
        last = min(len(problems), MOST_PROBLEMS) - 1  # that is shown
        problems[last] = Problem(problems[last].message, None, hint)
        raise SpecError(problems)


def artifact_drift(project: Project, node: StageNode, record: KeyRecord) -> str | None:
    """Return which artifact differs from the locked one although it must be equal byte for byte.

    Only some kinds promise equal bytes, and only for the same inputs. If a stage depends on one
    whose kind promises less, its artifacts may differ as well.
    """
    locked = project.lock.stage(node.id)
    if locked is None or node.stage.determinism != "exact" or record.key != locked["key"]:
        return None
    for name, output in record.outputs.items():
        wanted = locked["outputs"].get(name)
        if wanted is None or wanted["digest"] != output.digest:
            was = wanted["digest"][:12] if wanted else "nothing"
            return f"its output {name!r} is {output.digest[:12]}; {was} is locked"
    return None


def _drift(project: Project, plans: Mapping[str, StagePlan]) -> Iterator[str]:
    nodes = project.graph.nodes
    for name, plan in plans.items():
        locked = project.lock.stage(name)
        if locked is None:
            yield f"{name} is not in it"
            continue
        key_inputs = plan.record.ingredients if plan.kept and plan.record else plan.key_inputs
        pending = nodes[name].bindings.keys() - key_inputs["inputs"].keys()
        for cause in changes(
            nodes[name], locked["key_inputs"], key_inputs, project.files_of, pending
        ):
            if cause["cause"] != "upstream":  # its own input has drifted, or may differ
                yield f"{name}: {describe(cause)}"
        for label in _rewired(project.lock, nodes[name], locked):
            yield f"{name}: it is not made of {label}"
    for name in project.lock.stages():
        if name not in nodes:
            yield f"{name} is in it, but not in the spec"


def _rewired(lock: LockFile, node: StageNode, locked: LockedStage) -> Iterator[str]:
    """List references to stages that the locked artifact was not made from."""
    for port, binding in node.bindings.items():
        source = binding.source
        if not isinstance(source, StageOutput):
            continue
        upstream = lock.stage(source.stage)
        if upstream is None:
            continue  # already reported as missing from the lock
        key_inputs = locked["key_inputs"]["inputs"].get(port)
        made = upstream["outputs"].get(source.output)
        if key_inputs is None or made is None or key_inputs["digest"] != made["digest"]:
            yield binding.label
