"""How long stages will take, and how much disk, as far as earlier runs tell."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence

from llmpipe.runner.project import Project

UNKNOWN = 1.0
"""Seconds that a stage counts for which nothing is known of."""


def last_seconds(project: Project, stage: str) -> float | None:
    """Give the seconds that a stage took when it last ran, or None when that is not known."""
    record = project.last_record(stage)
    return record.seconds if record else None


def critical_paths(project: Project, dependents: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Give, for every stage, the seconds from its start to the end of the longest way down."""
    longest: dict[str, float] = {}
    for name in reversed(list(project.graph.nodes)):
        after = max((longest[other] for other in dependents[name]), default=0.0)
        own = last_seconds(project, name)
        longest[name] = after + (UNKNOWN if own is None else own)
    return longest


def disk_needed(project: Project, stages: Iterable[str]) -> int:
    """Give the bytes that stages will add to the store when they make as much as they did last."""
    records = filter(None, map(project.last_record, stages))
    return sum(output.size for record in records for output in record.outputs.values())


def disk_free(project: Project) -> int:
    """Give the bytes that are free where the store is."""
    return shutil.disk_usage(project.store.home).free
