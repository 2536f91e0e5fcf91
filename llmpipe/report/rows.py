"""Rows of data: how many were read, kept, and dropped for which reason.

Counts are recognized by their names in the metrics: ``in``, ``kept`` and ``dropped`` for rows read,
``rows`` and ``rejected`` for rows made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from markupsafe import Markup

from llmpipe.report.facts import Facts, is_number
from llmpipe.report.rendering import NOTHING, render


class Share(NamedTuple):
    """A part of a bar, in percent of its width."""

    name: str
    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Counts:
    """The rows of one stage: kept by part, dropped by reason."""

    total: int
    kept: Mapping[str, int]
    dropped: Mapping[str, int]

    def shares(self) -> Iterator[Share]:
        """Return the shares of kept rows, then those of dropped rows."""
        dropped = sum(self.dropped.values())
        start, total = 0.0, max(self.total, sum(self.kept.values()) + dropped, 1)
        kept = [(f"c{i}", count) for i, count in enumerate(self.kept.values())]
        for name, count in [*kept, ("dropped", dropped)]:
            width = 100 * count / total
            yield Share(name, start, width)
            start += width


def row_counts(facts: Facts) -> Markup:
    """Return the table of all stages that count rows."""
    found = {name: c for name, s in facts.run.stages.items() if (c := counts(s.metrics))}
    return render("rows.html", facts=facts, counts=found) if found else NOTHING


def counts(metrics: Mapping[str, Any]) -> Counts | None:
    """Return the counts of rows in a stage's metrics, or None if it has none."""
    total, kept, dropped = metrics.get("in"), metrics.get("kept"), metrics.get("dropped")
    if is_number(total) and _are_counts(kept) and _are_counts(dropped):
        return Counts(int(total or 0), kept, dropped)
    rows, rejected = metrics.get("rows"), metrics.get("rejected")
    if is_number(rows) and _are_counts(rejected):
        made = int(rows or 0)
        return Counts(made + sum(rejected.values()), {"made": made}, rejected)
    return None


def _are_counts(value: Any) -> TypeGuard[Mapping[str, int]]:
    return isinstance(value, dict) and all(map(is_number, value.values()))
