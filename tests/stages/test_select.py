"""``select`` by itself: how it finds a metric in metrics of any shape, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpipe.contracts import Artifact, StageResult
from llmpipe.errors import StageError
from llmpipe.stages.select import Select
from llmpipe.testing import run_stage

EVALUATED = {
    "models": {
        "base": {"loss": {"mean": 4.0, "low": 3.0, "high": 5.0}},
        "gguf.q8_0": {"loss": {"mean": 2.5, "low": 2.0, "high": 3.0}},
    },
    "paired": {},
}


def choose(tmp_path: Path, by: str, metrics: dict[str, Any], mode: str = "min") -> StageResult:
    """Run the stage over points whose metrics are given, each as data or as a file's text."""
    inputs: dict[str, Artifact] = {}
    for point, data in metrics.items():
        weights, measured = tmp_path / f"{point}.bin", tmp_path / f"{point}.json"
        weights.write_text(point)
        measured.write_text(data if isinstance(data, str) else json.dumps(data))
        inputs[f"of[{point}]"] = Artifact(weights, "file", point, "fit")
        inputs[f"by[{point}]"] = Artifact(measured, "metrics", point, "dev")
    return run_stage(Select, {"of": "fit", "by": by, "mode": mode}, tmp_path, inputs).result


def test_the_metrics_of_an_evaluation(tmp_path: Path) -> None:
    """A model by its name, which may hold a dot, and a metric by its mean."""
    other = json.loads(json.dumps(EVALUATED).replace("2.5", "2.25"))
    result = choose(tmp_path, "dev.gguf.q8_0.loss", {"a": EVALUATED, "b": other})
    assert (result.metrics["point"], result.metrics["value"]) == ("b", 2.25)
    assert result.outputs["winner"].read_text() == "b"


def test_a_metric_with_an_interval_is_its_mean(tmp_path: Path) -> None:
    """Wherever it stands in the metrics, as in the check of a rag stage."""
    measured = [{"labeled": {"token_f1": {"mean": m, "low": 0, "high": 1}}} for m in (0.2, 0.3)]
    metrics = dict(zip("ab", measured, strict=True))
    result = choose(tmp_path, "answers.labeled.token_f1", metrics, "max")
    assert (result.metrics["point"], result.metrics["value"]) == ("b", 0.3)


@pytest.mark.parametrize(
    ("by", "data", "value"),
    [
        ("dev.loss", {"loss": 3}, 3.0),
        ("dev.eval.loss", {"eval": {"loss": 0.5}}, 0.5),
        ("dev.eval.loss", {"eval.loss": 0.5}, 0.5),
        ("dev.a.b.c", {"a": {"b.c": 1}}, 1.0),
        ("dev.a.b.c", {"a.b": 7, "a": {"b": {"c": 1}}}, 1.0),
        ("dev.loss", {"loss": -1e300}, -1e300),
    ],
)
def test_ways_to_a_metric(tmp_path: Path, by: str, data: dict[str, Any], value: float) -> None:
    """Nested keys and keys with dots both lead there."""
    assert choose(tmp_path, by, {"p": data}).metrics["value"] == value


@pytest.mark.parametrize(
    ("by", "data", "message"),
    [
        ("dev.los", {"loss": 1, "x": {"y": 2}}, "did you mean 'loss'?"),
        ("dev.zzz", {"loss": 1, "x": {"y": 2}}, "it has: loss, x.y"),
        ("dev.loss", {"loss": True}, "it has: no metrics"),
        ("dev.loss", {"loss": "3"}, "it has: no metrics"),
        ("dev.loss", {"loss": None, "n": 1}, "it has: n"),
        ("dev.loss", [1, 2], "it has: no metrics"),
        ("dev.base.los", EVALUATED, "did you mean 'base.loss'?"),
        ("dev.loss", "loss: 3", "p.json of dev@p is not JSON"),
        ("dev.loss", {"models": [1]}, "it has: no metrics"),
    ],
)
def test_a_metric_that_is_not_there(tmp_path: Path, by: str, data: Any, message: str) -> None:
    """The message has the stage at its point, the metric, and what could have been meant."""
    with pytest.raises(StageError) as caught:
        choose(tmp_path, by, {"p": data})
    assert message in caught.value.render()
    assert "dev@p" in caught.value.render()


def test_the_table_marks_the_choice(tmp_path: Path) -> None:
    """A person sees every point's metric and which one won."""
    result = choose(tmp_path, "dev.loss", {"lr=0.1": {"loss": 2.0}, "lr=0.01": {"loss": 1.25}})
    assert result.summary.splitlines() == [
        "point    dev.loss",
        "lr=0.1   2",
        "lr=0.01  1.25  ← chosen",
    ]


def test_the_winner_takes_no_room(tmp_path: Path) -> None:
    """Where the disk allows it the artifact gets a second name instead of a copy."""
    result = choose(tmp_path, "dev.loss", {"a": {"loss": 1}})
    assert result.outputs["winner"].stat().st_ino == (tmp_path / "a.bin").stat().st_ino
