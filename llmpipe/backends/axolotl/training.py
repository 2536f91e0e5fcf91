"""Run Axolotl in a child process and watch it train.

It knows the lines that Axolotl prints (`Watcher`), the environment it needs, which checkpoint a
stopped run can go on from, and what to tell a user when it fails. It does not write the
configuration (`llmpipe.backends.axolotl.config`), and it trusts no exit status: Axolotl ends with 0
on Ctrl-C, so a run counts as finished only when its closing summary was printed.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.ending import (
    END_FILE,
    Curve,
    Ending,
    Labels,
    read_ending,
    read_labels,
)
from llmpipe.backends.axolotl.modules import python_path
from llmpipe.backends.axolotl.plugins.axolotl_labels import FILE as LABELS_FILE
from llmpipe.backends.subprocess import ChildResult, run_child
from llmpipe.errors import StageError

INSTALL_HINT = 'pip install "llmpipe[train]"'

PLUGINS = "plugins"
"""The folder beside a configuration that holds `llmpipe.backends.axolotl.plugins`."""

OnStep = Callable[[int, int | None, float], None]


@dataclass(frozen=True, slots=True)
class Launch:
    """How the training process is started: Axolotl's launcher and what is passed on to it."""

    launcher: str = "python"
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished training: how it ended, and what was left out of it."""

    ended: Ending
    dropped: list[str]
    """Axolotl's sentences about rows that it did not train on."""
    labels: Labels


@dataclass(slots=True)
class Watcher:
    """Reads a training's lines as they come and keeps what they say.

    ``every`` is Axolotl's ``logging_steps`` (losses carry no step number, so they are counted),
    ``first`` whether the very first step is logged as well, ``start`` the step resumed from.
    """

    every: int = 1
    first: bool = False
    start: int = 0
    on_step: OnStep | None = None
    loss: Curve = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    total: int | None = None
    finished: bool = False
    _started: bool = False
    _reached: int = 0

    def __call__(self, line: str) -> None:
        if "Starting trainer" in line:
            self._started = True
        if match := _DROPPED.search(line):
            self.dropped.append(match.group(0))
        if self._started and (bar := _BAR.search(line)):
            done, total = int(bar.group(1)), int(bar.group(2))
            self.total = self.total or total
            if total == self.total:
                self._reached = max(self._reached, done)
        if self._started and (record := _record(line)):
            self._take(record)

    @property
    def steps(self) -> int:
        """The last step known to be done."""
        return max(self._reached, self.loss[-1][0] if self.loss else self.start)

    def _take(self, record: Mapping[str, float]) -> None:
        if "loss" in record:
            last = self.loss[-1][0] if self.loss else self.start
            step = 1 if self.first and not last else (last // self.every + 1) * self.every
            self.loss.append((step, record["loss"]))
            if self.on_step:
                self.on_step(step, self.total, record["loss"])
            if _diverged(record):
                raise StageError(
                    f"training diverged at step {step}: the loss is no longer a finite number",
                    hint="lower learning_rate, or set max_grad_norm: 1.0 and warmup_ratio: 0.1",
                )
        elif "train_runtime" in record:
            self.finished = True


def _diverged(record: Mapping[str, float]) -> bool:
    """Whether a step's figures show that training broke down.

    The trainer prints 0 for a loss that is not finite, and a NaN gradient beside it.
    """
    loss = record["loss"]
    return not math.isfinite(loss) or (loss == 0 and math.isnan(record.get("grad_norm", 0)))


_BAR = re.compile(r"\d+%\|.*?\|\s*(\d+)/(\d+) \[")
_DROPPED = re.compile(r"Dropped \d+ .*?(?:samples|sequences).*")
_RECORD = re.compile(r"\{'.*\}")


def _record(line: str) -> dict[str, float] | None:
    """Read a line such as ``{'loss': '2.31', 'epoch': '0.5'}``; None when it is no such line."""
    match = _RECORD.search(line)
    if match is None or not any(word in line for word in ("loss'", "'train_runtime'")):
        return None
    figures: dict[str, float] = {}
    with contextlib.suppress(ValueError, SyntaxError):
        for key, value in _literal(match.group(0)).items():
            with contextlib.suppress(ValueError, TypeError):
                figures[str(key)] = float(value)
    return figures or None


def _literal(text: str) -> dict[Any, Any]:
    """Evaluate a printed dictionary; quote a bare ``nan`` or ``inf``, which is no literal."""
    quoted = re.sub(r"(?<=: )(-?(?:nan|inf))\b", r"'\1'", text)
    value: dict[Any, Any] = ast.literal_eval(quoted)
    return value


def environment(launch: Launch, *, threads: int, work: Path, offline: bool) -> dict[str, str]:
    """Give what the training process finds in its environment over ours.

    Telemetry is off, string hashes are fixed so that the same run writes the same bytes, the
    plugins beside the configuration can be imported, and data sets are cached under ``work``,
    never in a cache that outlives the data. ``offline`` keeps
    libraries from asking the Hugging Face hub. ``launch.env`` wins over all of it; to its
    ``PYTHONPATH`` the plugins' folder is added.
    """
    modules = python_path(launch.env)
    return {
        **portable_environment(offline=offline),
        "OMP_NUM_THREADS": str(threads),
        "HF_DATASETS_CACHE": str(work / "datasets-cache"),
        **launch.env,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(work / PLUGINS), modules))),
    }


def write_plugins(folder: Path) -> None:
    """Put the plugins and prompt strategies that compiled configurations name into ``folder``."""
    ours = Path(__file__).with_name("plugins")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ours, folder / PLUGINS, ignore=ignored, dirs_exist_ok=True)


def portable_environment(*, offline: bool) -> dict[str, str]:
    """Give the part of the environment that is the same on every machine."""
    return {
        "AXOLOTL_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONHASHSEED": "0",
        **({"HF_HUB_OFFLINE": "1"} if offline else {}),
    }


def arguments(config: str, launch: Launch, *, resume: Path | None = None) -> list[str]:
    """Give the words that stand after ``axolotl`` to train on a configuration file."""
    words = ["train", config, "--launcher", launch.launcher]
    if resume:
        words += ["--resume-from-checkpoint", str(resume)]
    return [*words, *(["--", *launch.args] if launch.args else [])]


def train(
    config: Path,
    launch: Launch,
    watcher: Watcher,
    *,
    env: Mapping[str, str],
    cwd: Path,
    output: Path,
    resume: Path | None = None,
) -> Outcome:
    """Train on a configuration file whose ``output_dir`` is ``output``; return when it is done.

    Raises:
        StageError: the process failed, stopped early, ran out of memory, its loss is not finite, or
            nobody looked at its labels.
    """
    words = arguments(str(config), launch, resume=resume)
    binaries = str(Path(sys.executable).parent)  # where accelerate and torchrun are
    path = f"{binaries}:{env.get('PATH') or _our('PATH') or os.defpath}"
    command = [sys.executable, "-m", "axolotl.cli.main", *words]
    for name in (END_FILE, LABELS_FILE):  # those of an earlier attempt
        (output / name).unlink(missing_ok=True)
    child = run_child(command, cwd=cwd, env={**env, "PATH": path}, on_line=watcher)
    labels = read_labels(output)
    if child.returncode or not watcher.finished:
        raise failure(child, watcher, labels)
    if labels is None:
        raise StageError(
            f"the training wrote no whole {LABELS_FILE}: its labels are unchecked",
            hint=f"does a plugin of the axolotl block or another program delete {LABELS_FILE} from "
            "output_dir?",
        )
    return Outcome(read_ending(output), watcher.dropped, labels)


def failure(child: ChildResult, watcher: Watcher, labels: Labels | None = None) -> StageError:
    """Say what went wrong in a training that did not finish, and what to try."""
    if labels and labels.error:
        return StageError(
            f"training was stopped before its first step: {labels.error}", hint=labels.hint
        )
    text = "\n".join(child.tail)
    if watcher.dropped and not watcher.steps and _EMPTY.search(text):
        return StageError(
            "training was stopped before its first step: no row is left to train on: "
            + "; ".join(watcher.dropped),
            hint="raise sequence_len, or look at the rows",
        )
    reason = next((line for line in reversed(child.tail) if _ERROR.match(line.strip())), "")
    hint = next((advice for sign, advice in _ADVICE if sign.search(text)), None)
    if child.returncode in (-9, 137):
        reason, hint = "it was killed, most likely for using too much memory", _MEMORY
    elif not child.returncode:
        reason = reason or "Axolotl ended without an error and without finishing"
    where = f"at step {watcher.steps}" if watcher.steps else "before the first step"
    told = [line for line in child.tail if not line.startswith((" ", "Traceback"))]  # no frames
    last = "\n".join(told[-5:])
    return StageError(
        f"training failed {where}: {reason.strip() or f'exit status {child.returncode}'}\n{last}",
        hint=hint,
    )


_MEMORY = (
    "set micro_batch_size: 1 and raise gradient_accumulation_steps; then lower sequence_len, "
    "set gradient_checkpointing: true, or use adapter: lora"
)
_EMPTY = re.compile(r"^StopIteration\b", re.MULTILINE)
"""How TRL ends on a data set without rows, before the plugin that looks at labels is asked."""

_ERROR = re.compile(r"[\w.]*(?:Error|Exception|Interrupt)\b.*")
_ADVICE = (
    (re.compile(r"out of memory|OutOfMemory|can't allocate memory", re.IGNORECASE), _MEMORY),
    (
        re.compile(r"validation errors? for|ValidationError"),
        "Axolotl refused the configuration: llmpipe check shows every problem at its line",
    ),
    (
        re.compile(r"No module named"),
        "a package that this configuration needs is not installed beside Axolotl",
    ),
    (
        re.compile(r"contains no samples|dataset is empty|num_samples=0|empty dataset", re.I),
        "every row was left out: raise sequence_len or look at the rows",
    ),
)


def last_checkpoint(output_dir: Path) -> Path | None:
    """Return the newest checkpoint that training can go on from; delete those torn by a crash.

    One at the end of a training is passed over: whatever starts there makes a step too many.
    """
    found = sorted(
        (p for p in output_dir.glob("checkpoint-*") if p.name[11:].isdigit()),
        key=lambda p: int(p.name[11:]),
        reverse=True,
    )
    for checkpoint in found:
        if not _is_whole(checkpoint):
            shutil.rmtree(checkpoint)
        elif not _is_over(checkpoint):
            return checkpoint
    return None


def _is_over(checkpoint: Path) -> bool:
    """Whether training ended at a checkpoint: all steps are made, or it was stopped early."""
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    control = (state.get("stateful_callbacks") or {}).get("TrainerControl") or {}
    stopped = control.get("args", {}).get("should_training_stop", False)
    return bool(stopped or state["global_step"] >= state.get("max_steps", math.inf))


def checkpoint_step(checkpoint: Path | None) -> int:
    """Return the step that a checkpoint stands at; 0 without one."""
    if checkpoint is None:
        return 0
    state = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))
    return int(state["global_step"])


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint has its state, its optimizer and complete tensors."""
    try:
        checkpoint_step(checkpoint)
    except (OSError, ValueError, KeyError):
        return False
    tensors = list(checkpoint.glob("*.safetensors"))
    others = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt"]
    if any(checkpoint.glob("global_step*")):  # DeepSpeed keeps these by rank
        others = []
    if not all(p.is_file() and p.stat().st_size for p in others):
        return False
    return bool(tensors or not others) and all(map(has_all_bytes, tensors))


def has_all_bytes(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says."""
    with file.open("rb") as stream:
        size = stream.read(8)
        if len(size) < 8:
            return False
        length = struct.unpack("<Q", size)[0]
        if length > min(file.stat().st_size, 100_000_000):
            return False
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return False
    ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
    return bool(file.stat().st_size == 8 + length + max(ends, default=0))


def _our(variable: str) -> str:
    return os.environ.get(variable, "")
