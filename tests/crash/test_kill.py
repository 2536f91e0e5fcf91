"""kill -9 of the head, of its workers, of their stages, or of all, at any instant.

Whatever was killed, runs that follow end in the bytes of an undisturbed run, without doing again
what was finished and without asking again what was answered. ``--long`` kills fifty times, and ten
times in a training.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from crash.pipeline import HANG_S, Pipeline, digests, request_name
from openai_endpoint import Endpoint
from processes import kill, parent_and_session, run_processes

pytestmark = pytest.mark.heavy

VICTIMS = ("head", "server", "worker", "stage", "head and worker", "all")

LONGEST = 2.5
"""Seconds after a run's start within which it is killed."""


def victims(what: str, head: int, home: Path) -> list[int]:
    """Return the processes of a running run that a kill is to take."""
    others = run_processes(home)
    families = {pid: parent_and_session(pid) for pid in others}
    servers = [pid for pid, (parent, _) in families.items() if parent == head]
    workers = [
        pid for pid, (_, session) in families.items() if session == pid and pid not in servers
    ]
    inner = [pid for pid in others if pid not in servers and pid not in workers]
    return {
        "head": [head],
        "server": servers,
        "worker": workers,
        "stage": inner,
        "head and worker": [head, *workers],
        "all": [head, *others],
    }[what]


def kill_at_random(process: subprocess.Popen[str], home: Path, chance: random.Random) -> str:
    """Let a run go on for a while, kill a part of it, wait for its head; say what was killed."""
    what = chance.choice(VICTIMS)
    try:
        process.wait(chance.uniform(0.05, LONGEST))
        found = []
    except subprocess.TimeoutExpired:
        found = victims(what, process.pid, home)
        kill(found)
    process.communicate(timeout=60)
    return what if found else "nothing"


def started(home: Path, before: set[str]) -> list[str]:
    """Name the stages that runs began to make which are not among those ``before``."""
    names = []
    for events in (home / "runs").glob("*/events.jsonl"):
        if events.parent.name in before:
            continue
        for line in events.read_text("utf-8").splitlines():
            event = json.loads(line)
            if event["event"] == "stage-started":
                names.append(event["stage"])
    return names


def test_kills_lose_and_repeat_nothing(
    undisturbed: dict[str, Any], teacher: Endpoint, long_form: bool, tmp_path: Path
) -> None:
    """Killed again and again, the pipeline ends in the same bytes, nothing finished done twice."""
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    keys = {name: stage["key"] for name, stage in undisturbed.items()}
    kills, round_ = 0, 0
    while kills < (50 if long_form else 6):
        round_ += 1
        pipeline = Pipeline(tmp_path / f"round-{round_}", teacher.url)
        history = [f"seed {seed}, round {round_}"]
        for _ in range(3):
            launch(pipeline, keys, teacher, chance, history)
            kills += history[-1] != "nothing"
        stages = launch(pipeline, keys, teacher, None, history)
        assert digests(stages) == digests(undisturbed), history


def launch(
    pipeline: Pipeline,
    keys: dict[str, str],
    teacher: Endpoint,
    chance: random.Random | None,
    history: list[str],
) -> dict[str, Any]:
    """Run once, killed at random or to the end, and hold against what was there before."""
    while chance is None and (left := run_processes(pipeline.home)):
        time.sleep(0.05)  # orphans go on for a moment; what they finish is tested by the kills
        assert left
    finished, journaled = pipeline.finished(keys), pipeline.journaled()
    runs = {p.name for p in (pipeline.home / "runs").glob("*")}
    trace, received = pipeline.trace(), len(teacher.received)
    process = pipeline.start()
    stages: dict[str, Any] = {}
    if chance is None:
        out, err = process.communicate(timeout=HANG_S)
        assert out, (history, err)
        result = json.loads(out)
        assert result["status"] == "done", (history, result)
        stages = result["stages"]
    else:
        history.append(kill_at_random(process, pipeline.home, chance))
    begun = {*started(pipeline.home, runs), *pipeline.trace()[len(trace) :]}
    assert not begun & finished, history
    asked = {request_name(body) for body in teacher.received[received:]}
    assert not asked & journaled, history
    return stages


TRAINING = """\
version: 1
name: training
stages:
  sft:
    kind: train
    base_model: BASE
    data: ./rows.jsonl
    axolotl:
      adapter: lora
      lora_r: 4
      learning_rate: 0.01
      max_steps: 12
      save_steps: 2
      micro_batch_size: 2
      sequence_len: 64
"""


class Training(Pipeline):
    """A training of a tiny model, run through the command line."""

    def __init__(self, folder: Path, base: Path) -> None:
        super().__init__(folder, "")
        (folder / "spec.yaml").write_text(TRAINING.replace("BASE", str(base)), "utf-8")
        rows = (
            {"messages": [{"role": "user", "content": f"Ticket: {number} boxes"},
                          {"role": "assistant", "content": f"city {number}"}]}
            for number in range(24)
        )  # fmt: skip
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def checkpoint(self) -> int:
        """Return the step of the newest whole checkpoint."""
        states = (self.home / "work").glob("*/output/checkpoint-*/trainer_state.json")
        steps = [step for path in states if (step := _step(path)) is not None]
        return max(steps, default=0)


def _step(state: Path) -> int | None:
    try:
        step: int = json.loads(state.read_bytes())["global_step"]
    except (OSError, ValueError):
        return None
    return step


@pytest.mark.timeout(3600)
def test_a_killed_training_goes_on_from_its_checkpoint(
    tmp_path: Path, tiny_llama: Path, long_form: bool
) -> None:
    """Killed at any step, a training resumes and ends with the steps and bytes of an undisturbed one."""
    undisturbed = Training(tmp_path / "undisturbed", tiny_llama).run()
    chance = random.Random(7)
    kills, round_ = 0, 0
    while kills < (10 if long_form else 1):
        round_ += 1
        training = Training(tmp_path / f"round-{round_}", tiny_llama)
        resumed = []
        for _ in range(2 if long_form else 1):
            process = training.start()
            wait_for_step(training, process, training.checkpoint() + chance.choice((1, 2, 3)))
            time.sleep(chance.uniform(0, 0.5))
            kill(victims("all", process.pid, training.home))
            process.communicate()
            kills += 1
            resumed.append(training.checkpoint())
        stages = training.run()
        assert stages["sft"]["metrics"]["steps"] == undisturbed["sft"]["metrics"]["steps"] == 12
        assert digests(stages) == digests(undisturbed), resumed
        assert f"checkpoint of step {resumed[-1]}" in warnings_of(training.home)


def wait_for_step(training: Training, process: subprocess.Popen[str], step: int) -> None:
    """Wait until a checkpoint of this step or a later one exists."""
    deadline = time.monotonic() + 180
    while training.checkpoint() < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def warnings_of(home: Path) -> str:
    """Return what the last run warned of."""
    last = max((home / "runs").iterdir())
    events = map(json.loads, (last / "events.jsonl").read_text("utf-8").splitlines())
    return "\n".join(event["message"] for event in events if event["event"] == "warning")
