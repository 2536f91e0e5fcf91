"""``select`` by itself: how it finds a metric in metrics of any shape, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpipe.contracts import Artifact, StageResult
from llmpipe.errors import StageError
from llmpipe.stages.select import Select, SelectConfig
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


def choose_of_list(tmp_path: Path, metrics: dict[str, Any], **fields: Any) -> StageResult:
    """Run the stage over a list of artifacts that one stage compares."""
    measured = tmp_path / "metrics.json"
    measured.write_text(json.dumps({"models": metrics}))
    inputs = {}
    for name in metrics:
        (tmp_path / name).write_text(name)
        inputs[f"of[{name}]"] = Artifact(tmp_path / name, "file", name, name)
        inputs[f"by[{name}]"] = Artifact(measured, "metrics", "q", "quality")
    config = {"of": list(metrics), "by": "quality.bytes", "mode": "min", **fields}
    return run_stage(Select, config, tmp_path, inputs).result


QUANTIZED = {
    "gguf.q4_k_m": {"bytes": 105, "kl": {"mean": 0.076}, "same_top": {"mean": 0.83}},
    "gguf.q6_k": {"bytes": 138, "kl": {"mean": 0.012}, "same_top": {"mean": 0.92}},
    "gguf.q8_0": {"bytes": 145, "kl": {"mean": 0.006}, "same_top": {"mean": 0.95}},
}


@pytest.mark.parametrize(
    ("limits", "chosen", "outside"),
    [
        ({}, "gguf.q4_k_m", {}),
        ({"at_most": {"kl": 0.05}}, "gguf.q6_k", {"gguf.q4_k_m": "kl 0.076 is above 0.05"}),
        (
            {"at_least": {"same_top": 0.95}},
            "gguf.q8_0",
            {
                "gguf.q4_k_m": "same_top 0.83 is below 0.95",
                "gguf.q6_k": "same_top 0.92 is below 0.95",
            },
        ),
    ],
)
def test_the_smallest_file_within_a_limit(
    tmp_path: Path, limits: dict[str, Any], chosen: str, outside: dict[str, str]
) -> None:
    """A list of artifacts, compared by one stage under their names; what is out is told."""
    result = choose_of_list(tmp_path, QUANTIZED, **limits)
    assert result.outputs["winner"].read_text() == chosen
    assert result.metrics["outside"] == outside
    assert all(why in result.summary for why in outside.values())


def test_nothing_is_within_the_limits(tmp_path: Path) -> None:
    """The error has every candidate with its value."""
    with pytest.raises(StageError, match=r"gguf\.q8_0: kl 0\.006 is above 0\.001"):
        choose_of_list(tmp_path, QUANTIZED, at_most={"kl": 0.001})
    with pytest.raises(StageError, match=r"metrics of quality have no metric 'gguf\.q4_k_m\.k'"):
        choose_of_list(tmp_path, QUANTIZED, at_most={"k": 1})


@pytest.mark.parametrize(
    ("of", "told"), [(["a"], "at least two"), (["a", "b", "a"], "'a' is listed twice")]
)
def test_a_list_of_candidates_is_checked(of: list[str], told: str) -> None:
    """Nothing to choose from, or the same artifact twice, is a mistake in the spec."""
    config = SelectConfig(kind="select", of=of, by="quality.bytes", mode="min")
    assert [told in message for _, message in Select.problems(config)] == [True]


def test_limits_that_exclude_each_other() -> None:
    """No candidate can be within both limits of a metric."""
    config = SelectConfig(
        kind="select", of="fit", by="dev.loss", mode="min",
        at_most={"kl": 0.05, "a": 1.0}, at_least={"kl": 0.1, "a": 1.0, "b": 2.0},
    )  # fmt: skip
    assert Select.problems(config) == [
        (("at_least", "kl"), "nothing is at least 0.1 and at most 0.05")
    ]
