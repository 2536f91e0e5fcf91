"""What stages take before they run, and whether it fits: as text, or as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmpipe.api.plan import about
from llmpipe.api.running import PlannedRun
from llmpipe.contracts import Hardware, Needs
from llmpipe.estimate.hardware import parse_gpu
from llmpipe.runner.capacity import fits
from llmpipe.runner.estimate import last_seconds
from llmpipe.runner.messages import size_text
from llmpipe.runner.needs import estimates_of
from llmpipe.runner.plan import StagePlan
from llmpipe.runner.project import Project
from llmpipe.runner.resources import hardware_here


@dataclass(frozen=True, slots=True)
class StageEstimate:
    """What one stage takes; see `llmpipe.contracts.Needs`."""

    id: str
    kind: str
    needs: Needs
    fits: bool | None
    """Whether it fits into the memory of the machine; None where that is not known."""
    seconds: float | None
    """From earlier runs, scaled; None where none can tell."""
    money: float | None
    """US dollars."""


class Estimate(Mapping[str, StageEstimate]):
    """What each stage takes on a machine. Printed, it is text.

    Attributes:
        hardware: the machine.
    """

    def __init__(self, spec: str, hardware: Hardware, stages: Mapping[str, StageEstimate]) -> None:
        self._spec, self._stages, self.hardware = spec, stages, hardware

    def __getitem__(self, stage: str) -> StageEstimate:
        return self._stages[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    @property
    def fits(self) -> bool | None:
        """Whether every stage fits; None where that is not known of one, and none is too large."""
        verdicts = {stage.fits for stage in self._stages.values()}
        return False if False in verdicts else None if None in verdicts else True

    def as_json(self) -> dict[str, Any]:
        """Return the estimate as ``llmpipe estimate --json`` prints it."""
        return {
            "spec": self._spec,
            "hardware": asdict(self.hardware),
            "fits": self.fits,
            "stages": {
                name: {
                    "kind": stage.kind,
                    "fits": stage.fits,
                    **asdict(stage.needs),
                    "seconds": stage.seconds,
                    "money": stage.money,
                }
                for name, stage in self._stages.items()
            },
        }

    def __repr__(self) -> str:
        lines = [f"on {hardware_text(self.hardware)}"]
        width = max(map(len, self._stages), default=0)
        for stage in self._stages.values():
            lines.append(f"{stage.id:<{width}}  {stage.kind:<11}  {_verdict(stage)}")
            lines += [f"{'':<{width + 2}}{line}" for line in _details(stage)]
        return "\n".join(lines)


def estimate_stages(
    planned: PlannedRun,
    shown: Sequence[str] | None = None,
    *,
    gpu: str | None = None,
    price: float | None = None,
    online: bool = False,
) -> Estimate:
    """Return what the stages of a planned run take, whether they are cached or not.

    Args:
        planned: a run of all stages.
        shown: these stages alone.
        gpu: see `llmpipe.api.pipeline.Pipeline.estimate`, as for the other arguments.
        price: US dollars an hour.
        online: whether small files may be downloaded.

    Raises:
        UsageError: ``gpu`` does not describe GPUs.
    """
    project = planned.project
    hardware = hardware_here() if gpu is None else parse_gpu(gpu)
    names = list(planned.stages) if shown is None else shown
    needs = estimates_of(project, names, hardware=hardware, depth="full", online=online)
    stages = {}
    for name in names:
        plan, takes = planned.stages[name], needs.get(name, Needs())
        seconds = _seconds(project, plan, takes)
        money = takes.money
        if price is not None and seconds is not None:
            money = (money or 0.0) + price * seconds / 3600
        verdict = fits(takes, hardware)
        stages[name] = StageEstimate(name, plan.kind, takes, verdict, seconds, money)
    return Estimate(str(project.graph.spec.path), hardware, stages)


def _seconds(project: Project, plan: StagePlan, needs: Needs) -> float | None:
    """Return how long a stage takes: as it took last, if nothing changed, or as the plan says."""
    if plan.status == "cached":
        return last_seconds(project, plan.id)
    return plan.seconds if plan.seconds is not None else needs.seconds


def hardware_text(hardware: Hardware) -> str:
    """Describe a machine in a few words."""
    if hardware.kind == "cpu":
        memory = f", {size_text(hardware.memory)} of memory" if hardware.memory else ""
        return f"a machine without GPU{memory}"
    size = size_text(hardware.gpu_memory) if hardware.gpu_memory else "unknown size"
    return f"{hardware.gpus} GPU{'s' * (hardware.gpus > 1)} of {size}"


def _verdict(stage: StageEstimate) -> str:
    needs = stage.needs
    takes = []
    if needs.gpu_memory is not None:
        takes.append(f"{size_text(needs.gpu_memory)} of GPU memory")
    if needs.memory is not None:
        takes.append(f"{size_text(needs.memory)} of memory")
    if needs.disk is not None:
        takes.append(f"{size_text(needs.disk)} of disk")
    if needs.temporary:
        takes.append(f"{size_text(needs.temporary)} of disk for a while")
    if needs.download is not None:
        takes.append(f"{size_text(needs.download)} to download")
    takes.append("time unknown" if stage.seconds is None else about(stage.seconds))
    if stage.money is not None:
        takes.append(f"{stage.money:,.2f} USD")
    verdict = {True: "fits: ", False: "DOES NOT FIT: ", None: ""}[stage.fits]
    return verdict + ", ".join(takes)


def _details(stage: StageEstimate) -> Iterator[str]:
    needs = stage.needs
    for name, size in needs.parts.items():
        yield f"{name:<17} {size_text(size):>9}"
    for name, size in needs.outputs.items():
        yield f"output {name:<10} {size_text(size):>9} on disk"
    if needs.micro_batch:
        yield f"largest micro_batch_size that fits: {needs.micro_batch}"
    elif needs.micro_batch == 0:
        yield "no micro_batch_size fits as it is"
    for change in needs.changes:
        yield f"would fit: {change}" if ": " in change and "GB" in change[-4:] else change
    for note in needs.notes:
        yield f"note: {note}"
