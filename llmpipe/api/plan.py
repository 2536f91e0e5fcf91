"""A plan as a person reads it: as text, or as a table in a notebook."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from llmpipe.contracts import Needs
from llmpipe.runner.messages import describe, size_text
from llmpipe.runner.plan import StagePlan
from llmpipe.runner.project import Project

SHOWN_CAUSES = 6
"""Causes of one stage that the plan of all shows; below a sweep there are hundreds."""


class Plan(Mapping[str, StagePlan]):
    """What a run would do: for every stage, cached or to run, and why.

    It is a mapping of the stages' names to their plans, each with ``status`` (``cached`` or
    ``run``), ``causes``, ``key`` and ``seconds``. Printed, it is text; in a notebook it is a table.

    Attributes:
        warnings: what is worth knowing before a run.
        needs: what the stages that are to run will take, of those whose kind estimates it:
            see `llmpipe.contracts.Needs`.
    """

    def __init__(
        self,
        project: Project,
        stages: Mapping[str, StagePlan],
        warnings: Sequence[str] = (),
        needs: Mapping[str, Needs] = MappingProxyType({}),
    ) -> None:
        self._spec = str(project.graph.spec.path)
        self._stages = stages
        self.warnings = list(warnings)
        self.needs = needs

    def __getitem__(self, stage: str) -> StagePlan:
        return self._stages[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stages)

    def __len__(self) -> int:
        return len(self._stages)

    @property
    def to_run(self) -> list[str]:
        """The stages that would run, in the order in which they would."""
        return [plan.id for plan in self._stages.values() if plan.status == "run"]

    @property
    def status(self) -> str:
        """``run`` when a stage would run, else ``cached``."""
        return "run" if self.to_run else "cached"

    def as_json(self) -> dict[str, Any]:
        """Return the plan as ``llmpipe plan --json`` prints it."""
        return {
            "spec": self._spec,
            "status": self.status,
            "stages": {name: self._stage_json(plan) for name, plan in self._stages.items()},
            "warnings": self.warnings,
        }

    def _stage_json(self, plan: StagePlan) -> dict[str, Any]:
        data, needs = plan.as_json(), self.needs.get(plan.id)
        return data if needs is None else {**data, "needs": asdict(needs)}

    def _status(self, plan: StagePlan) -> str:
        return status_text(plan, self.needs.get(plan.id))

    def __repr__(self) -> str:
        """Return a line per stage and a line per cause; in the end, how much there is to do."""
        width = max(map(len, self._stages), default=0)
        lines = []
        for plan in self._stages.values():
            derived = f"  (derived for {plan.derived_for})" if plan.derived_for else ""
            lines.append(f"{plan.id:<{width}}  {plan.kind:<11}  {self._status(plan)}{derived}")
            lines += _causes(plan, " " * (width + 2), SHOWN_CAUSES)
        return "\n".join([*lines, self._total()])

    def _total(self) -> str:
        to_run = [plan for plan in self._stages.values() if plan.status == "run"]
        count = f"{len(self)} stage{'' if len(self) == 1 else 's'}"
        cached = len(self) - len(to_run)
        seconds = [_seconds(plan, self.needs.get(plan.id)) for plan in to_run]
        total = f"{count}: {len(to_run)} to run{_in_all(seconds)}, {cached} cached"
        sums = ", ".join(_sums([self.needs[plan.id] for plan in to_run if plan.id in self.needs]))
        return f"{total}; as far as known, {sums}" if sums else total

    def _repr_html_(self) -> str:
        from html import escape

        rows = []
        for plan in self._stages.values():
            causes = [escape(describe(cause)) for cause in plan.causes[:SHOWN_CAUSES]]
            if left := len(plan.causes) - len(causes):
                causes.append(f"and {left} more")
            derived = f" (for {plan.derived_for})" if plan.derived_for else ""
            cells = (escape(plan.id), escape(plan.kind + derived), escape(self._status(plan)))
            rows.append([*cells, "<br>".join(causes)])
        notes = [self._total(), *(f"warning: {warning}" for warning in self.warnings)]
        return html_table(["stage", "kind", "status", "because"], rows, notes)


def html_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> str:
    """Return a table for a notebook. Its cells are HTML; heads and notes are text."""
    from html import escape

    head = "".join(f"<th style='text-align:left'>{escape(name)}</th>" for name in heads)
    lines = (
        "<tr>"
        + "".join(f"<td style='text-align:left;vertical-align:top'>{cell}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    told = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{told}"


def stage_text(plan: StagePlan) -> str:
    """Return all that is known of one stage: its key, what that is made of, why it would run."""
    import yaml

    text = yaml.safe_dump(dict(plan.key_inputs), sort_keys=True, allow_unicode=True, width=100)
    return "\n".join(
        [
            f"{plan.id} ({plan.kind}): {status_text(plan)}",
            *_causes(plan, "  "),
            f"key: {plan.key or 'not known before what it needs has run'}",
            "made of:",
            *(f"  {line}" for line in text.splitlines()),
        ]
    )


def status_text(plan: StagePlan, needs: Needs | None = None) -> str:
    """Describe what will happen to a stage, and what it will cost."""
    if plan.status == "cached":
        lacks = [f"made without {name}" for name in plan.lacks]
        return ", ".join(["cached", *(["kept as it is"] if plan.kept else []), *lacks])
    seconds = _seconds(plan, needs)
    if seconds is not None:
        parts = [about(seconds) if plan.seconds is not None else f"{about(seconds)} (estimated)"]
    else:
        parts = [] if {cause["cause"] for cause in plan.causes} == {"new"} else ["time unknown"]
    return ", ".join(["run", *parts, *_resources(needs)])


def _seconds(plan: StagePlan, needs: Needs | None) -> float | None:
    """Return how long a stage will take, from earlier runs or from its kind's estimate."""
    return plan.seconds if plan.seconds is not None or needs is None else needs.seconds


def _resources(needs: Needs | None) -> Iterator[str]:
    if needs is not None and needs.memory is not None:
        yield f"{size_text(needs.memory)} of memory"
    if needs is not None and needs.gpu_memory is not None:
        yield f"{size_text(needs.gpu_memory)} of GPU memory"
    if needs is not None and needs.disk is not None:
        yield f"{size_text(needs.disk)} of disk"
    if needs is not None and needs.download is not None:
        yield f"{size_text(needs.download)} to download"
    if needs is not None and needs.money is not None:
        yield f"{needs.money:,.2f} USD"


def _sums(needs: Sequence[Needs]) -> Iterator[str]:
    """Yield what stages take together, as far as it is known: memory of the one that takes most."""
    if memory := max((each.memory or 0 for each in needs), default=0):
        yield f"up to {size_text(memory)} of memory at a time"
    if gpu := max((each.gpu_memory or 0 for each in needs), default=0):
        yield f"up to {size_text(gpu)} of GPU memory"
    if disk := sum(each.disk or 0 for each in needs):
        yield f"{size_text(disk)} of disk"
    if download := sum(each.download or 0 for each in needs):
        yield f"{size_text(download)} to download"
    if money := sum(each.money or 0 for each in needs):
        yield f"{money:,.2f} USD"


def _causes(plan: StagePlan, indent: str, most: int | None = None) -> Iterator[str]:
    word = "although" if plan.kept else "because"
    for cause in plan.causes[:most]:
        yield f"{indent}{word} {describe(cause)}"
    left = 0 if most is None else len(plan.causes) - most
    if left > 0:
        yield f"{indent}and for {left} more: llmpipe plan SPEC {shlex.quote(plan.id)} lists them"


def _in_all(seconds: Sequence[float | None]) -> str:
    """Describe how long the stages take one after another, as far as known."""
    known = [each for each in seconds if each is not None]
    if not known:
        return ""
    unknown = len(seconds) - len(known)
    rest = f" and {unknown} of unknown length" if unknown else ""
    return f" ({about(sum(known))}{rest})"


def about(seconds: float) -> str:
    """Return an estimate of time, as exact as earlier runs allow."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 60:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60} min"
