"""Runs to report on: a real one of commands, and the record of a training as the engine writes it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from math import exp
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.axolotl.ending import Ending, Labels
from llmpipe.canonical import digest
from llmpipe.evaluation.bootstrap import RowScores
from llmpipe.evaluation.summary import compact, summarize, table
from llmpipe.runner.outcome import StageOutcome, content, write_record
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.store import Store
from llmpipe.stages import train_metrics

COMMANDS = """\
version: 1
name: tickets
params: {greeting: hello}
stages:
  dataset:
    kind: format
    data: ./rows.jsonl
    to: messages
    split: {eval: 0.2, test: 0.2}
  sft:
    kind: command
    run: "echo training at 0.0001 on $(wc -l < ${inputs.data}) rows; echo ${params.greeting} > ${outputs.model}"
    inputs: {data: dataset}
    outputs: {model: model.txt}
    matrix: {env.RATE: ["1e-5", "1e-4", "1e-3"]}
  dev:
    kind: command
    run: 'python -c "import json,sys; print(json.dumps(dict(loss=len(open(sys.argv[1]).read()) / 4)))" ${inputs.model} > ${outputs.metrics}'
    inputs: {model: sft}
    outputs: {metrics: dev.json}
  best: {kind: select, of: sft, by: dev.loss, mode: min}
  check:
    kind: command
    run: "echo checking ${inputs.model}; echo 'no such thing: the checker' >&2; exit 3; touch ${outputs.o}"
    inputs: {model: best}
    outputs: {o: o.txt}
  serve:
    kind: command
    run: "cp ${inputs.o} ${outputs.o}"
    inputs: {o: check}
    outputs: {o: o.txt}
"""

HOSTILE = "</script></pre></title><img src=x onerror=alert(1)><svg onload=alert(2)>\"'&"
"""What would act in a page that let it: every text below that a user has a say in holds it."""

ATTACK = """\
version: 1
name: attack
params: {text: %s}
stages:
  made:
    kind: command
    description: "${params.text}"
    run: "echo \\"$TEXT\\" > ${outputs.o}"
    env: {TEXT: "${params.text}", TOKEN: "${secret:TOKEN}"}
    outputs: {o: o.txt}
    matrix: {env.AXIS: [%s, b]}
  broken:
    kind: command
    run: "echo \\"$TEXT $TOKEN\\"; exit 1; cp ${inputs.i} ${outputs.o}"
    env: {TEXT: "${params.text}", TOKEN: "${secret:TOKEN}"}
    inputs: {i: made}
    outputs: {o: o.txt}
"""

TRAINING = """\
version: 1
name: quickstart
params: {base: ./base}
profiles: {gpu: {params: {base: ./base}}}
stages:
  extra:
    kind: generate
    method: evol-instruct
    teacher: {engine: llama.cpp, model: ./teacher.gguf}
    seeds: ./rows.jsonl
    count: 40
  dataset:
    kind: format
    sources: [{data: ./rows.jsonl}, {data: extra}]
    to: messages
    split: {eval: 20, test: 50, random_seed: 7}
  sft:
    kind: train
    base_model: "${params.base}"
    data: dataset
    eval_data: dataset.eval
    axolotl: {adapter: lora, lora_r: 16, micro_batch_size: 4, max_steps: 56}
    matrix: {axolotl.learning_rate: [5e-4, 1e-3, 2e-3]}
  dev: {kind: evaluate, models: [sft], data: dataset.eval, metrics: [loss]}
  best: {kind: select, of: sft, by: dev.sft.loss, mode: min}
  gguf: {kind: export, model: best, quantize: q8_0}
  quality: {kind: evaluate, models: [base, best, gguf], data: dataset.test, metrics: [loss, rouge_l]}
  chat: {kind: serve, model: gguf}
"""


def call(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "llmpipe", *arguments],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


def write_rows(folder: Path) -> None:
    """Write rows of data of which one stands there twice."""
    rows = [
        {"instruction": f"Question {i % 29}?", "output": f"Answer {i % 29}."} for i in range(30)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")


@pytest.fixture(scope="session")
def failed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a spec of which `llmpipe run` has really run all up to a stage that fails."""
    folder = tmp_path_factory.mktemp("tickets")
    write_rows(folder)
    (folder / "spec.yaml").write_text(COMMANDS, "utf-8")
    result = call(folder, "run", "spec.yaml", "-k", "--set", "params.greeting=good morning")
    assert result.returncode == 1, result.stderr
    return folder


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a spec whose texts, logs, points and metrics all try to be markup."""
    folder = tmp_path_factory.mktemp("attack")
    text = json.dumps(HOSTILE)
    (folder / "spec.yaml").write_text(ATTACK % (text, text), "utf-8")
    setting = f"params.text={text}"
    result = call(folder, "run", "spec.yaml", "-k", "--set", setting, TOKEN="hunter2-hunter2")
    assert result.returncode == 1, result.stderr
    (record,) = folder.glob(".llmpipe/runs/*/run.json")
    data = json.loads(record.read_bytes())
    stage = next(iter(data["stages"].values()))
    stage["summary"] = f"{HOSTILE}\n{HOSTILE}"
    stage["metrics"] = {
        HOSTILE: {"loss": 1.0, HOSTILE: 2.0},
        f"{HOSTILE}2": {"loss": 1.0, HOSTILE: 2.0},
        "paired": {HOSTILE: {HOSTILE: {"loss": [0.1, -0.2, 0.3]}}},
    }
    data["stages"]["counts"] = {
        **stage,
        "stage": "counts",
        "metrics": {
            "in": 3, "kept": {HOSTILE: 1}, "dropped": {HOSTILE: 2}, HOSTILE: [[1, 2.0], [2, 1.0]],
        },
        "causes": [{"cause": "config", "field": f"stages.x.{HOSTILE}", "old": HOSTILE, "new": 1}],
        "error": {"message": HOSTILE, "hint": HOSTILE, "tail": [HOSTILE], "log": HOSTILE},
    }  # fmt: skip
    record.write_text(json.dumps(data), "utf-8")
    assert call(folder, "report").returncode == 0
    return folder


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a spec with the record of a run of ten minutes that trained and evaluated.

    Nothing is trained, but all is written by what writes it in a real run: the engine the record
    and the store, the stages' own code their metrics.
    """
    folder = tmp_path_factory.mktemp("quickstart")
    write_rows(folder)
    (folder / "teacher.gguf").write_bytes(b"GGUF")
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}", "utf-8")
    (folder / "spec.yaml").write_text(TRAINING, "utf-8")
    project = Project.open(folder / "spec.yaml", profiles=["gpu"])
    project.store.create()
    run_folder = project.store.runs / "20261124-091500-a1b2"
    run_folder.mkdir()
    outcomes = dict(_outcomes(project))
    seconds = max((o.started or 0) + o.seconds for o in outcomes.values())
    begun = datetime(2026, 11, 24, 9, 15, tzinfo=UTC)
    settings = ["stages.sft.axolotl.max_steps=56"]
    told = content(project.graph, settings, outcomes.values())
    write_record(run_folder, begun, "done", seconds, told)
    warning = {"event": "warning", "stage": "extra", "message": "40 rows of 44: 4 are too long"}
    sft = "sft@axolotl.learning_rate=0.0005"
    rows = {"event": "trained-rows", "stage": sft, "rows": ["Why?⟦So.⟧"]}
    events = "".join(json.dumps(event) + "\n" for event in (warning, rows))
    (run_folder / "events.jsonl").write_text(f'{events}{{"event": "warning", "st', "utf-8")
    assert call(folder, "report").returncode == 0
    return folder


@pytest.fixture(scope="session")
def command_line() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a folder as a user would."""
    return call


@pytest.fixture(scope="session")
def hostile() -> str:
    """The text that tries to be markup."""
    return HOSTILE


def _outcomes(project: Project) -> Iterator[tuple[str, StageOutcome]]:
    clock = 0.4
    for node in project.graph.nodes.values():
        metrics, summary, seconds, files = _work(node.id, node.family, node.point)
        outputs = {
            name: _stored(project.store, files.get(name, {"made by": node.id}), output.type)
            for name, output in node.ports.outputs.items()
        }
        inputs = {
            port: {"type": binding.type, "digest": digest(binding.label), "suffix": ""}
            for port, binding in node.bindings.items()
        }
        key_inputs = {
            "record": 1, "kind": node.kind, "version": 1, "config": {}, "inputs": inputs,
            "tools": {"axolotl": "0.19.0", "torch": "2.13.0"} if node.kind == "train" else {},
        }  # fmt: skip
        record = KeyRecord(
            digest([node.id, key_inputs]), node.kind, key_inputs, outputs, metrics, summary, seconds,
            "2026-11-24T09:20:00.000+00:00",
        )  # fmt: skip
        project.store.save(record)
        cached = node.family == "extra"
        outcome = StageOutcome(node.id, node.kind, "cached" if cached else "done", record.key)
        outcome.record = record
        if not cached:
            outcome.causes = [
                {"cause": "config", "field": "stages.sft.axolotl.max_steps", "old": 40, "new": 56},
                {"cause": "upstream", "stage": "dataset", "pending": False},
            ]
            outcome.started, outcome.seconds = round(clock, 3), seconds
            clock += seconds
        yield node.id, outcome


def _stored(store: Store, content: Any, type_: str) -> Any:
    path = store.tmp / "artifact.json"
    path.write_text(json.dumps(content), "utf-8")
    return store.put(path, type_)


def _work(
    name: str, family: str, point: Mapping[Any, Any]
) -> tuple[dict[str, Any], str, float, dict[str, Any]]:
    """Return what a stage's work comes to: metrics, summary, seconds, and the files that count."""
    rate = next(iter(point.values()), 1e-3)
    if family == "extra":
        measured = {"rows": 40, "rejected": {"copy": 3, "too long": 4}, "operators": {"deepen": 40}}
        return measured, "40 rows of 47", 61.0, {}
    if family == "dataset":
        metrics = {
            "in": 543,
            "kept": {"train": 440, "eval": 20, "test": 50},
            "dropped": {"duplicate": 21, "generated from a held-out row": 12},
            "generated": 28,
        }
        return metrics, "543 rows: 440 train, 20 eval, 50 test", 1.3, {}
    if family == "sft":
        ended = _training(rate)
        labels = Labels(440, 30_000, 12_000, [], None, None)
        return train_metrics.metrics(ended, labels), train_metrics.summary(ended), 173.0, {}
    if family == "dev":
        metrics, text, full = _compared({"sft": _dev_loss(rate)}, ["loss"])
        return metrics, text, 20.0, {"metrics": full}
    if family == "best":
        measured = {
            f"axolotl.learning_rate={r}": _compared({"sft": _dev_loss(r)}, ["loss"])[0]["sft"][
                "loss"
            ]
            for r in (5e-4, 1e-3, 2e-3)
        }
        best = min(measured, key=lambda p: measured[p])
        choice = {"point": best, "value": measured[best], "by": "dev.sft.loss", "points": measured}
        return choice, f"{best} has the least dev.sft.loss", 0.2, {}
    if family == "quality":
        metrics, text, full = _compared(
            {"base": 4.04, "best": 3.28, "gguf": 3.29}, ["loss", "rouge_l"]
        )
        return metrics, text, 96.0, {"metrics": full}
    if family == "chat":
        answer = {"question": "How long does a permit take?", "answer": "About three weeks."}
        return {"answers": [answer]}, "“About three weeks.”", 4.0, {}
    return {"q8_0": {"bytes": 145_000_000}}, "q8_0 145.0 MB", 18.5, {}


def _training(rate: float) -> Ending:
    noise = random.Random(str(rate))
    speed = rate * 60

    def loss(step: int) -> float:
        return 3.1 + 1.4 * exp(-speed * step) + noise.uniform(-0.14, 0.14)

    train = [{"step": step, "loss": round(loss(step), 4)} for step in range(1, 57)]
    held_out = [
        {"step": step, "eval_loss": round(3.2 + 1.1 * exp(-speed * step), 4)}
        for step in (14, 28, 42, 56)
    ]
    return Ending(56, 56, [*train, *held_out], False, None, None, None, None)


def _compared(means: Mapping[str, float], metrics: list[str]) -> tuple[dict[str, Any], str, Any]:
    noise = random.Random(7)
    rows = [(noise.uniform(-1, 1), noise.randint(20, 60)) for _ in range(50)]
    scores: dict[str, dict[str, RowScores]] = {}
    for model, mean in means.items():
        tokens = [float(count) for _, count in rows]
        nats = [(mean + shift + noise.uniform(-0.4, 0.4)) * count for shift, count in rows]
        rouge = [
            min(1.0, max(0.0, 0.85 - mean / 6 + shift / 5 + noise.uniform(-0.05, 0.05)))
            for shift, _ in rows
        ]
        scores[model] = {"rouge_l": RowScores.mean(rouge)}
        if model != "gguf":
            scores[model] = {"loss": RowScores(nats, tokens), **scores[model]}
    scores = {m: {k: v for k, v in s.items() if k in metrics} for m, s in scores.items()}
    summary = summarize(scores, 0)
    return compact(summary), f"{table(summary, metrics)}\n50 rows, 95 % intervals", summary


def _dev_loss(rate: float) -> float:
    return 3.3 + abs(rate - 0.001) * 40
