"""The resources of a machine, what stages need of them, and which are taken."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmpipe.backends.device import detect
from llmpipe.contracts import Hardware, Resources, StageConfig
from llmpipe.graph.model import StageNode

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
GPU_FOLDER = Path("/proc/driver/nvidia/gpus")
DEVICE_FILES = ("dev/nvidia*", "dev/dxg", "dev/kfd", "dev/dri/renderD*")
"""Device files in the root folder whose presence means that a library may use an accelerator."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The resources to share: CPU threads, bytes of memory, ids of GPUs."""

    cpus: int
    memory: int
    gpus: tuple[str, ...] = ()

    @classmethod
    def here(cls) -> Machine:
        """Return the resources of this machine that this process may use."""
        return cls(len(os.sched_getaffinity(0)), _memory(), _gpus())


@dataclass(frozen=True, slots=True)
class Grant:
    """The resources that a running stage was given."""

    cpus: int
    memory: int = 0
    gpus: tuple[str, ...] | None = None
    """Its own GPUs; None if it did not ask for any and may see all."""
    family: str = ""
    """The stage's id as the spec writes it, for the limit of a sweep."""

    def environment(self) -> dict[str, str]:
        """Return environment variables that limit the stage to its share."""
        return {} if self.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


def hardware_here() -> Hardware:
    """Return what this machine offers to a training."""
    machine, device = Machine.here(), detect()
    if device.kind == "cpu":
        return Hardware(memory=machine.memory)
    gpus = max(1, len(machine.gpus))
    dtype = device.dtype
    return Hardware("cuda", device.memory or None, gpus, machine.memory, dtype)


class Pool:
    """Hands out the machine's resources and takes them back.

    A stage that does not declare its CPU threads takes all of them, unless its kind is known to
    need one. A stage never waits for more than the machine has.
    """

    def __init__(self, machine: Machine, jobs: int | None = None) -> None:
        self.machine = machine
        self.jobs = jobs
        self._held: list[Grant] = []

    @property
    def full(self) -> bool:
        """Return whether no resources are left to grant."""
        if self.jobs is not None and len(self._held) >= self.jobs:
            return True
        return sum(grant.cpus for grant in self._held) >= self.machine.cpus

    def take(self, node: StageNode) -> Grant | None:
        """Return what a stage needs, or None while too little is free."""
        if self.full:
            return None
        limit = node.declared.max_parallel if node.declared else None
        if limit is not None and sum(g.family == node.family for g in self._held) >= limit:
            return None
        needed: Resources = node.config.resources
        cpus = min(needed.cpus or node.stage.cpus or self.machine.cpus, self.machine.cpus)
        memory = min(needed.memory_bytes(), self.machine.memory)
        if cpus > self.machine.cpus - sum(grant.cpus for grant in self._held):
            return None
        if memory > self.machine.memory - sum(grant.memory for grant in self._held):
            return None
        gpus = None
        if needed.gpus is not None:
            taken = {gpu for grant in self._held for gpu in grant.gpus or ()}
            free = [gpu for gpu in self.machine.gpus if gpu not in taken]
            if needed.gpus > len(free):
                return None
            gpus = tuple(free[: needed.gpus])
        grant = Grant(cpus, memory, gpus, node.family)
        self._held.append(grant)
        return grant

    def give_back(self, grant: Grant) -> None:
        """Take back what a stage held. A second call has no effect."""
        for i, held in enumerate(self._held):
            if held is grant:
                del self._held[i]
                return


def shortage(machine: Machine, config: StageConfig) -> tuple[str, str] | None:
    """Return what a stage needs that this machine does not have, as (resource, text), or None."""
    wanted = config.resources.gpus or 0
    if wanted > len(machine.gpus):
        needs = f"it needs {wanted} GPU{'s' * (wanted > 1)}"
        return "gpus", f"{needs}; this machine has {len(machine.gpus)}"
    if config.resources.memory_bytes() > machine.memory:
        has = f"{machine.memory / 1e9:.1f} GB"
        return "memory", f"it needs {config.resources.memory} of memory; this machine has {has}"
    return None


def _memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(CGROUP_LIMIT.read_text("ascii")))
    except (OSError, ValueError):  # no limit: the file is absent or says "max"
        return total


def device_here() -> bool:
    """Return whether there may be a GPU or another accelerator, whatever the environment says."""
    return GPU_FOLDER.is_dir() or any(
        True for pattern in DEVICE_FILES for _ in Path("/").glob(pattern)
    )


def _gpus() -> tuple[str, ...]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(_named(visible.split(",")))
    try:
        return tuple(str(i) for i, _ in enumerate(GPU_FOLDER.iterdir()))
    except OSError:
        return ()


def _named(gpus: Sequence[str]) -> list[str]:
    """Return the listed ids up to the first invalid one, as CUDA does."""
    found: list[str] = []
    for gpu in (part.strip() for part in gpus):
        if not gpu or gpu.startswith("-"):
            break
        found.append(gpu)
    return found
