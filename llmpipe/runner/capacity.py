"""Refuse a run of stages that cannot fit into this machine's memory, before anything starts."""

from __future__ import annotations

from collections.abc import Collection

from llmpipe.contracts import Hardware, Needs
from llmpipe.errors import Problem, SpecError
from llmpipe.runner.messages import size_text
from llmpipe.runner.needs import estimates_of
from llmpipe.runner.project import Project
from llmpipe.runner.resources import hardware_here


def fits(needs: Needs, hardware: Hardware) -> bool | None:
    """Return whether work fits into a machine's memory, or None where that is not known."""
    pairs = [(needs.memory, hardware.memory), (needs.gpu_memory, hardware.gpu_memory)]
    known = [a <= b for a, b in pairs if a is not None and b is not None]
    return all(known) if known else None


def require_fit(project: Project, stages: Collection[str]) -> None:
    """Check that the estimated memory of each stage is there.

    Raises:
        SpecError: a stage needs more memory than this machine or its GPU has.
    """
    hardware = hardware_here()
    problems: dict[str, Problem] = {}
    for name, needs in estimates_of(project, stages, hardware=hardware, depth="gate").items():
        if fits(needs, hardware) is not False:
            continue
        node = project.graph.nodes[name]
        where = node.declared.locate(()) if node.declared else None
        spec = project.graph.spec.path.name
        hint = (
            f"llmpipe estimate {spec} {name} shows of what this consists and what to change; "
            "--ignore-estimate runs it all the same"
        )
        told = f"stages.{node.family}: {shortfall(needs, hardware)}"
        problems.setdefault(node.family, Problem(told, where, hint))
    if problems:
        raise SpecError(list(problems.values()))


def shortfall(needs: Needs, hardware: Hardware) -> str:
    """Describe what work takes that a machine does not have."""
    gpu, there = needs.gpu_memory, hardware.gpu_memory
    if gpu is not None and there is not None and gpu > there:
        return f"it needs about {size_text(gpu)} of GPU memory, and a GPU has {size_text(there)}"
    needed, memory = needs.memory or 0, hardware.memory or 0
    return f"it needs about {size_text(needed)} of memory, and this machine has {size_text(memory)}"
