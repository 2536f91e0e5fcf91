"""Choose the best of several artifacts. Stages that depend on ``select`` run once, on the winner.

    best: {kind: select, of: sft, by: dev.sft.loss, mode: min}
    small: {kind: select, of: [gguf.q4_k_m, gguf.q8_0], by: quality.bytes, mode: min,
            at_most: {kl: 0.05}}

``of`` is a stage with several points. ``by`` is a metric of a stage with the same points: the
stage, then the path of the metric. For an ``evaluate`` stage, this path is the model as it is
listed there, and the metric. Or ``of`` is a list of artifacts that the stage of ``by`` compares
under the same names; the path is then without the name. If metrics are equal, the first one in the
order of the matrix or the list wins. One whose metric is not finite (a training that diverged) or
that is outside the limits cannot win. One without the metric is an error.
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
    ArtifactType,
    FieldPath,
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
    """The candidates, and the metric that decides."""

    of: str | list[str]
    """What to choose from: a stage with several points, or one of its outputs; or a list of
    artifacts, such as `[gguf.q4_k_m, gguf.q8_0]`."""
    by: Annotated[str, msgspec.Meta(pattern=r"^[^.]+(\.[^.]+)+$")]
    """The metric that decides: a stage with the same points, and the path of the metric, such as
    `dev.sft.loss`. For a list: the stage that compares them, and the metric, such as
    `quality.bytes`."""
    mode: Literal["min", "max"]
    """Whether the lowest or the highest metric wins."""
    at_most: dict[str, float] = msgspec.field(default_factory=dict)
    """Other metrics of the same stage that must not be higher, such as `{kl: 0.05}`; the path as in
    `by`, without the stage."""
    at_least: dict[str, float] = msgspec.field(default_factory=dict)
    """Other metrics of the same stage that must not be lower."""


class Select(StageDefaults):
    """The stage kind ``select``."""

    Config = SelectConfig
    VERSION = 4
    determinism = "exact"
    cpus = 1

    @staticmethod
    def ports(config: SelectConfig) -> Ports:
        stage, _, metric = config.by.partition(".")
        metrics: dict[str, FieldPath] = {metric: ("by",)}
        for field in ("at_most", "at_least"):
            metrics |= {name: (field, name) for name in getattr(config, field)}
        takes: tuple[ArtifactType, ...] = ("metrics", "records")
        like = "of"
        if isinstance(config.of, str):
            inputs = {
                "of": Input(("of",), config.of, ANYTHING, gather=True),
                "by": Input(("by",), stage, takes, gather=True, metrics=metrics),
            }
        else:
            inputs = {
                f"of[{name}]": Input(("of", i), name, ANYTHING) for i, name in enumerate(config.of)
            }
            like = next(iter(inputs), like)
            inputs |= {
                f"by[{of}]": Input(
                    ("by",), stage, takes, metrics={f"{of}.{m}": at for m, at in metrics.items()}
                )
                for of in config.of
            }
        outputs = {"winner": Output("file", like=like), "choice": Output("metrics")}
        return Ports(inputs, outputs, default="winner")

    @staticmethod
    def problems(config: SelectConfig) -> list[tuple[FieldPath, str]]:
        found: list[tuple[FieldPath, str]] = []
        if isinstance(config.of, list):
            if len(config.of) < 2:
                found.append((("of",), "list at least two artifacts to choose from"))
            found += [
                (("of", i), f"{name!r} is listed twice")
                for i, name in enumerate(config.of)
                if name in config.of[:i]
            ]
        found += [
            (
                ("at_least", name),
                f"nothing is at least {low:g} and at most {config.at_most[name]:g}",
            )
            for name, low in config.at_least.items()
            if low > config.at_most.get(name, low)
        ]
        return found

    @staticmethod
    def fingerprint(config: SelectConfig) -> dict[str, Any]:
        metric = config.by.partition(".")[2]
        limits = {"at_most": config.at_most, "at_least": config.at_least}
        return {"of": config.of, "by": config.by, "metric": metric, "mode": config.mode, **limits}

    @staticmethod
    def run(ctx: StageContext[SelectConfig]) -> StageResult:
        """Read every point's metric and publish the artifact of the best.

        Raises:
            StageError: A point lacks the metric, or no value is finite.
        """
        by = ctx.config.by
        points = [name[3:-1] for name in ctx.inputs if name.startswith("of[")]
        metric = by.partition(".")[2]
        values = {point: _read_metric(ctx, metric, point) for point in points}
        finite = {point: value for point, value in values.items() if math.isfinite(value)}
        lost = [point for point in points if point not in finite]
        if not finite:
            raise StageError(f"the metric {by} is not finite at any point")
        if lost:
            ctx.warn(f"not considered, because {by} is not finite: {', '.join(lost)}")
        outside = {point: why for point in finite if (why := _outside(ctx, point))}
        within = {point: value for point, value in finite.items() if point not in outside}
        if not within:
            told = "; ".join(f"{point or 'the stage'}: {why}" for point, why in outside.items())
            raise StageError(
                f"nothing is within the limits: {told}", hint="raise a limit, or add candidates"
            )
        best = (min if ctx.config.mode == "min" else max)(within, key=within.__getitem__)
        source = ctx.input(f"of[{best}]").path
        winner = ctx.out / "winner" / source.name
        winner.parent.mkdir()
        _link(source, winner)
        choice = {
            "point": best, "value": values[best], "by": by,
            "points": finite, "lost": lost, "outside": outside,
        }  # fmt: skip
        return StageResult(
            {"winner": winner, "choice": write_json(ctx.out / "choice.json", choice)},
            choice,
            _table(values, best, by, outside),
        )


def _outside(ctx: StageContext[SelectConfig], point: str) -> str:
    """Return which limits a point is outside of, or an empty text."""
    config = ctx.config
    high = {name: (_read_metric(ctx, name, point), limit) for name, limit in config.at_most.items()}
    low = {name: (_read_metric(ctx, name, point), limit) for name, limit in config.at_least.items()}
    found = [f"{name} {v:.4g} is above {top:g}" for name, (v, top) in high.items() if not v <= top]
    found += [f"{name} {v:.4g} is below {end:g}" for name, (v, end) in low.items() if not v >= end]
    return ", ".join(found)


def _read_metric(ctx: StageContext[SelectConfig], metric: str, point: str) -> float:
    """Return a metric of a point, or raise an error that lists the available ones."""
    metrics = ctx.input(f"by[{point}]")
    stage = ctx.config.by.partition(".")[0]
    if isinstance(ctx.config.of, list):
        metric, point = f"{point}.{metric}", ""
    steps = metric.split(".")
    where = f"{stage}@{point}" if point else stage
    try:
        data = json.loads(metrics.path.read_bytes())
    except (ValueError, OSError):
        raise StageError(f"{metrics.path.name} of {where} is not JSON") from None
    named = ["models", *steps]
    for way in (steps, [*steps, "mean"], named, [*named, "mean"]):
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


def _table(values: Mapping[str, float], best: str, by: str, outside: Mapping[str, str]) -> str:
    width = max(map(len, ["point", *values]))
    rows = [f"{'point':<{width}}  {by}"]
    for point, value in values.items():
        note = f"  ({outside[point]})" if point in outside else ""
        rows.append(f"{point:<{width}}  {value:.10g}{'  ← chosen' if point == best else note}")
    return "\n".join(rows)
