"""Run Axolotl in a subprocess and watch its training.

This module parses Axolotl's output (`Watcher`), sets up its environment, and explains failures.
`llmpipe.backends.axolotl.config` writes the configuration, `llmpipe.backends.axolotl.checkpoints`
finds the checkpoint to resume from. The exit code is not reliable: Axolotl exits with 0 on Ctrl-C,
so a run counts as finished only if it printed its closing summary.
"""

from __future__ import annotations

import ast
import contextlib
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.bad_row import BadRow, find_bad_row
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
"""The folder beside a configuration with `llmpipe.backends.axolotl.plugins`."""

OnStep = Callable[[int, int | None, float], None]


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start the training process: Axolotl's launcher, its arguments and environment."""

    launcher: str = "python"
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished training: how it ended, and which rows were dropped."""

    ended: Ending
    dropped: list[str]
    """Axolotl's messages about rows that it did not train on."""
    labels: Labels


@dataclass(slots=True)
class Watcher:
    """Reads a training's output line by line and collects losses, steps and dropped rows.

    ``every`` is Axolotl's ``logging_steps`` (losses have no step number, so they are counted),
    ``first`` is whether the first step is also logged, and ``start`` is the step resumed from.
    """

    every: int = 1
    first: bool = False
    start: int = 0
    on_step: OnStep | None = None
    loss: Curve = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    total: int | None = None
    finished: bool = False
    preparing: bool = False
    """Whether rows are being prepared: Axolotl has begun, and has not yet saved them."""
    _started: bool = False
    _reached: int = 0
    _left_out: LeftOut = field(default_factory=lambda: LeftOut())

    def __call__(self, line: str) -> None:
        if match := _PREPARING.search(line):
            self.preparing = match.group(0) == "Loading dataset:"
        if "Starting trainer" in line:
            self._started = True
        if told := self._left_out(line):
            self.dropped.append(told)
        if self._started and (bar := _BAR.search(line)):
            done, total = int(bar.group(1)), int(bar.group(2))
            self.total = self.total or total
            if total == self.total:
                self._reached = max(self._reached, done)
        if self._started and (record := _record(line)):
            self._take(record)

    @property
    def steps(self) -> int:
        """The last completed step, as far as known."""
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


def dropped_rows(lines: Iterable[str]) -> list[str]:
    """Return Axolotl's messages about rows that it does not train on."""
    left_out = LeftOut()
    return [told for line in lines if (told := left_out(line))]


class LeftOut:
    """Reads lines in which Axolotl leaves rows out: too long, of other shards, or repeated."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}

    def __call__(self, line: str) -> str | None:
        """Return what a line says of rows that are left out, if it does."""
        if match := _DROPPED.search(line):
            return match.group(0)
        if match := _SIZE.search(line):
            name, size = match["name"], int(match["size"])
            if match["when"] == "Original":
                self._before[name] = size
            elif size < self._before.get(name, 0):
                count = self._before[name] - size
                return f"{count} of the {name} rows, which repeat others (deduplication)"
        return None


def _diverged(record: Mapping[str, float]) -> bool:
    """Return whether a step's metrics show that training diverged.

    The trainer prints 0 for a loss that is not finite, together with a NaN gradient.
    """
    loss = record["loss"]
    return not math.isfinite(loss) or (loss == 0 and math.isnan(record.get("grad_norm", 0)))


_PREPARING = re.compile(r"Loading dataset:|Saving the dataset")
_BAR = re.compile(r"\d+%\|.*?\|\s*(\d+)/(\d+) \[")
_DROPPED = re.compile(
    r"Dropped \d+ .*?(?:samples|sequences).*|Using index #\d+ of (?!1 )\d+ shards"
)
_SIZE = re.compile(
    r"eduplication (?:complete )?for (?P<name>\w+) dataset\. "
    r"(?P<when>Original|New) size: (?P<size>\d+)"
)
_RECORD = re.compile(r"\{'.*\}")


def _record(line: str) -> dict[str, float] | None:
    """Read a line such as ``{'loss': '2.31', 'epoch': '0.5'}``; return None for other lines."""
    match = _RECORD.search(line)
    if match is None or not any(word in line for word in ("loss'", "'train_runtime'")):
        return None
    metrics: dict[str, float] = {}
    with contextlib.suppress(ValueError, SyntaxError):
        for key, value in _literal(match.group(0)).items():
            with contextlib.suppress(ValueError, TypeError):
                metrics[str(key)] = float(value)
    return metrics or None


def _literal(text: str) -> dict[Any, Any]:
    """Evaluate a printed dictionary; quote bare ``nan`` and ``inf``, which are not literals."""
    quoted = re.sub(r"(?<=: )(-?(?:nan|inf))\b", r"'\1'", text)
    value: dict[Any, Any] = ast.literal_eval(quoted)
    return value


def environment(launch: Launch, *, threads: int, work: Path, offline: bool) -> dict[str, str]:
    """Return the variables that the training process gets in addition to our environment.

    Telemetry is off, and string hashes are fixed so that the same run writes the same bytes. The
    plugins beside the configuration can be imported. Data sets are cached under ``work``, never in
    a cache that outlives the data. ``offline`` stops libraries from calling the Hugging Face hub.
    ``launch.env`` overrides all of it; the plugins' folder is added to its ``PYTHONPATH``.
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
    """Copy the plugins and prompt strategies of compiled configurations into ``folder``."""
    ours = Path(__file__).with_name("plugins")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ours, folder / PLUGINS, ignore=ignored, dirs_exist_ok=True)


def portable_environment(*, offline: bool) -> dict[str, str]:
    """Return the part of the environment that is the same on every machine."""
    return {
        "AXOLOTL_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONHASHSEED": "0",
        **({"HF_HUB_OFFLINE": "1"} if offline else {}),
    }


def arguments(config: str, launch: Launch, *, resume: Path | None = None) -> list[str]:
    """Return the arguments of ``axolotl`` for training with a configuration file."""
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
    """Train with a configuration file whose ``output_dir`` is ``output``.

    Raises:
        StageError: The process failed, ended too early or ran out of memory, its loss is not
            finite, or its labels were not checked.
    """
    words = arguments(str(config), launch, resume=resume)
    binaries = str(Path(sys.executable).parent)  # where accelerate and torchrun are
    path = f"{binaries}:{env.get('PATH') or _our('PATH') or os.defpath}"
    command = [sys.executable, "-m", "axolotl.cli.main", *words]
    for name in (END_FILE, LABELS_FILE):  # from an earlier attempt
        (output / name).unlink(missing_ok=True)
    env = {**env, "PATH": path}
    child = run_child(command, cwd=cwd, env=env, on_line=watcher)
    labels = read_labels(output)
    if child.returncode or not watcher.finished:
        prepared = child.returncode <= 0 or not watcher.preparing
        raise failure(child, watcher, labels, None if prepared else find_bad_row(config, env, cwd))
    if labels is None:
        raise StageError(
            f"the training wrote no complete {LABELS_FILE}: its labels are unchecked",
            hint=f"does a plugin of the axolotl block or another program delete {LABELS_FILE} from "
            "output_dir?",
        )
    return Outcome(read_ending(output), watcher.dropped, labels)


def failure(
    child: ChildResult,
    watcher: Watcher,
    labels: Labels | None = None,
    bad_row: BadRow | None = None,
) -> StageError:
    """Return the error of a training that did not finish, with what to try."""
    if labels and labels.error:
        return StageError(
            f"training was stopped before its first step: {labels.error}", hint=labels.hint
        )
    if bad_row:
        which = "evaluation" if bad_row.split == "test_datasets" else "training"
        return StageError(
            "training was stopped before its first step: Axolotl cannot prepare row "
            f"{bad_row.row} of the {which} rows: {bad_row.error}",
            hint="change the row or leave it out; or use a chat_template that can write it",
        )
    text = "\n".join(child.tail)
    if watcher.dropped and not watcher.steps and _EMPTY.search(text):
        return StageError(
            "training was stopped before its first step: no row is left to train on: "
            + "; ".join(watcher.dropped),
            hint="raise sequence_len, or check the rows",
        )
    reason = next((line for line in reversed(child.tail) if _ERROR.match(line.strip())), "")
    hint = next((advice for sign, advice in _ADVICE if sign.search(text)), None)
    if child.returncode in (-9, 137):
        reason, hint = "it was killed, most likely for using too much memory", _MEMORY
    elif not child.returncode:
        reason = reason or "Axolotl ended without an error and without finishing"
    where = f"at step {watcher.steps}" if watcher.steps else "before the first step"
    told = [
        line for line in child.tail if not line.startswith((" ", "Traceback"))
    ]  # without stack frames
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
"""TRL's error for a data set without rows, raised before the labels plugin runs."""

_ERROR = re.compile(r"[\w.]*(?:Error|Exception|Interrupt)\b.*")
_ADVICE = (
    (re.compile(r"out of memory|OutOfMemory|can't allocate memory", re.IGNORECASE), _MEMORY),
    (
        re.compile(r"validation errors? for|ValidationError"),
        "Axolotl refused the configuration: llmpipe check shows every problem at its line",
    ),
    (
        re.compile(r"the chat template cannot write this row"),
        "change the row or leave it out; or use a chat_template that can write it",
    ),
    (
        re.compile(r"the chat template renders another prompt"),
        (
            "a pair trains only where a chat begins with the prompt for generation: use a "
            "chat_template that writes both alike; one that opens answers with <think> may have a "
            "switch, as in chat_template_kwargs: {enable_thinking: false}"
        ),
    ),
    (
        re.compile(r"No module named"),
        "a package that this configuration needs is not installed next to Axolotl",
    ),
    (
        re.compile(r"contains no samples|dataset is empty|num_samples=0|empty dataset", re.I),
        "every row was dropped: raise sequence_len or check the rows",
    ),
)


def _our(variable: str) -> str:
    return os.environ.get(variable, "")
