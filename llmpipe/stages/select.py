"""Choose the best point of a sweep. Stages that depend on ``select`` run once, on the winner.

    best: {kind: select, of: sft, by: dev.sft.loss, mode: min}

``of`` is a stage with several points. ``by`` is a metric of a stage with the same points: the
stage, then the path of the metric. For an ``evaluate`` stage, this path is the model as it is
listed there, and the metric. If metrics are equal, the first point in the order of the matrix wins.
A point whose metric is not finite (a training that diverged) cannot win. A point without the metric
is an error.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec

from llmpipe.contracts import (
    Artifact,
    ArtifactType,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    write_json,
)
from llmpipe.errors import StageError, did_you_mean

ANYTHING: tuple[ArtifactType, ...] = get_args(ArtifactType)


class SelectConfig(StageConfig, frozen=True, kw_only=True):
    """The sweep to choose from, and the metric that decides."""

    of: str
    """What to choose from: a stage with several points, or one of its outputs."""
    by: Annotated[str, msgspec.Meta(pattern=r"^[^.]+(\.[^.]+)+$")]
    """The metric that decides: a stage with the same points, and the path of the metric, such as
    `dev.sft.loss`."""
    mode: Literal["min", "max"]
    """Whether the lowest or the highest metric wins."""


class Select(StageDefaults):
    """The stage kind ``select``."""

    Config = SelectConfig
    VERSION = 3
    determinism = "exact"
    cpus = 1

    @staticmethod
    def ports(config: SelectConfig) -> Ports:
        stage, _, metric = config.by.partition(".")
        inputs = {
            "of": Input(("of",), config.of, ANYTHING, gather=True),
            "by": Input(("by",), stage, ("metrics", "records"), gather=True, metric=metric),
        }
        outputs = {"winner": Output("file", like="of"), "choice": Output("metrics")}
        return Ports(inputs, outputs, default="winner")

    @staticmethod
    def fingerprint(config: SelectConfig) -> dict[str, Any]:
        metric = config.by.partition(".")[2]
        return {"of": config.of, "by": config.by, "metric": metric, "mode": config.mode}

    @staticmethod
    def run(ctx: StageContext[SelectConfig]) -> StageResult:
        """Read every point's metric and publish the artifact of the best.

        Raises:
            StageError: A point lacks the metric, or no value is finite.
        """
        by = ctx.config.by
        points = [name[3:-1] for name in ctx.inputs if name.startswith("of[")]
        values = {point: _read_metric(ctx.input(f"by[{point}]"), by, point) for point in points}
        finite = {point: value for point, value in values.items() if math.isfinite(value)}
        lost = [point for point in points if point not in finite]
        if not finite:
            raise StageError(f"the metric {by} is not finite at any point")
        if lost:
            ctx.warn(f"not considered, because {by} is not finite: {', '.join(lost)}")
        best = (min if ctx.config.mode == "min" else max)(finite, key=finite.__getitem__)
        source = ctx.input(f"of[{best}]").path
        winner = ctx.out / "winner" / source.name
        winner.parent.mkdir()
        _link(source, winner)
        choice = {"point": best, "value": values[best], "by": by, "points": finite, "lost": lost}
        return StageResult(
            {"winner": winner, "choice": write_json(ctx.out / "choice.json", choice)},
            choice,
            _table(values, best, by),
        )


def _read_metric(metrics: Artifact, by: str, point: str) -> float:
    """Return the metric from a JSON file, or raise an error that lists the available ones."""
    stage, *steps = by.split(".")
    where = f"{stage}@{point}" if point else stage
    try:
        data = json.loads(metrics.path.read_bytes())
    except (ValueError, OSError):
        raise StageError(f"{metrics.path.name} of {where} is not JSON") from None
    for way in (steps, [*steps, "mean"], ["models", *steps, "mean"]):
        found = _follow(data, way)
        if isinstance(found, (int, float)) and not isinstance(found, bool):
            return float(found)
    models = _follow(data, ["models"])
    known = sorted(_metric_names(models if isinstance(models, dict) else data))
    hint = did_you_mean(".".join(steps), known) or f"it has: {', '.join(known) or 'no metrics'}"
    raise StageError(f"the metrics of {where} have no metric {'.'.join(steps)!r}", hint=hint)


def _follow(data: Any, steps: list[str]) -> Any:
    """Follow a path of keys; a key may itself contain dots, as the model ``gguf.q8_0`` does."""
    if not steps:
        return data
    if not isinstance(data, dict):
        return None
    for i in range(len(steps), 0, -1):
        key = ".".join(steps[:i])
        found = _follow(data[key], steps[i:]) if key in data else None
        if found is not None:
            return found
    return None


def _metric_names(data: Any, above: str = "") -> list[str]:
    """List the metrics of a file; a metric with an interval counts once."""
    found: list[str] = []
    if not isinstance(data, dict):
        return found
    for key, value in data.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and "mean" not in value:
            found += _metric_names(value, f"{name}.")
        elif isinstance(value, (dict, int, float)) and not isinstance(value, bool):
            found.append(name)
    return found


def _link(source: Path, target: Path) -> None:
    """Hard-link an artifact if the disk allows it; otherwise copy it."""
    if source.is_dir():
        target.mkdir()
        for entry in source.iterdir():
            _link(entry, target / entry.name)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _table(values: Mapping[str, float], best: str, by: str) -> str:
    width = max(map(len, ["point", *values]))
    rows = [f"{'point':<{width}}  {by}"]
    for point, value in values.items():
        rows.append(f"{point:<{width}}  {value:.6g}{'  ← chosen' if point == best else ''}")
    return "\n".join(rows)
