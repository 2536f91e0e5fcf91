"""Check a train stage's settings before anything runs.

The merged settings of ``axolotl_file`` and block are checked, as the run will use them. No tool is
asked here; `llmpipe.backends.axolotl.check` does that. An error stops `plan`, `validate` and `run`;
a warning is shown by each of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.config import (
    GRPO,
    OWNED,
    BlockProblem,
    with_defaults,
)
from llmpipe.backends.axolotl.modules import python_path
from llmpipe.backends.axolotl.paths import bare_paths, beside_file, paths_in
from llmpipe.backends.axolotl.sharding import FSDP, known_fault
from llmpipe.backends.device import Device, detect
from llmpipe.canonical import leaves
from llmpipe.contracts import Finding
from llmpipe.errors import StageError, did_you_mean
from llmpipe.paths import expanded
from llmpipe.stages.train_config import TrainConfig
from llmpipe.stages.train_entry import entry_problems
from llmpipe.stages.train_idle import idle_keys
from llmpipe.stages.train_methods import method_problems
from llmpipe.stages.train_tracking import tracking_problems

_WHOLE_STEPS = (
    "count whole steps: set eval_steps, and save_steps to the same number or a multiple of it"
)
_EACH_EPOCH = "; after each of several epochs: evals_per_epoch: 1 and saves_per_epoch: 1"

_MEASURES = ("plugins", "do_causal_lm_eval", "do_bench_eval", "trainer_cls")
"""Keys with which evaluations may give more than a loss and its perplexity."""

_CHOOSING = ("load_best_model_at_end", "early_stopping_patience")
"""Keys by which evaluations decide which weights are kept."""


def complaints(
    config: TrainConfig, block: Mapping[str, Any], folder: Path, device: Device | None = None
) -> Iterator[BlockProblem]:
    """Yield all problems of a stage's merged block.

    Args:
        config: The stage's.
        block: The merged block.
        folder: The spec's.
        device: What will train; None for this machine's.
    """
    evaluates, rewarded = config.eval_data is not None, bool(config.rewards)
    yield from setting_problems(block, evaluates=evaluates, rewarded=rewarded)
    if rewarded and config.axolotl_file is not None and block.get("rl") != GRPO:
        yield BlockProblem((), "is read for rl: grpo only", field="rewards")
    yield from _sharding_problems(config, block, device or detect())
    yield from tracking_problems(config.axolotl, block, config.launch.env)
    own = paths_in(config.axolotl)
    for where, value in paths_in(block).items():
        if where not in own:
            yield BlockProblem(
                where,
                f"{value} is a path, and a change of its content would go unnoticed",
                f"write {_dotted(where)} in the stage's axolotl block, relative to the spec",
            )
    for where, message in entry_problems(block, config.dataset):
        yield BlockProblem(where, message, field="dataset")
    bare = list(bare_paths(block, folder, python_path(config.launch.env)))
    yield from bare
    if file := file_of(config, folder):
        told = {problem.path for problem in bare}
        theirs = {key: value for key, value in block.items() if key not in config.axolotl}
        yield from (found for found in beside_file(theirs, file) if found.path not in told)
    if config.adapter_start == "continue" and block.get("lora_model_dir"):
        yield BlockProblem(
            ("lora_model_dir",),
            "is set by llmpipe: training continues from the stage's base_model",
            "remove lora_model_dir, or adapter_start: continue",
        )


def setting_problems(
    block: Mapping[str, Any], *, evaluates: bool, rewarded: bool | None = None
) -> Iterator[BlockProblem]:
    """Yield settings of a block that would be ignored, or done wrongly, on this machine.

    Args:
        block: Axolotl's keys.
        evaluates: Whether there are rows to evaluate on.
        rewarded: Whether the stage has rewards; None for a file that names its own.
    """
    plugins = block.get("plugins")
    if plugins is not None and not isinstance(plugins, list):
        name = plugins if isinstance(plugins, str) else "module.Name"
        hint = f"write plugins: [{name}]"
        yield BlockProblem(("plugins",), "plugins must be a list", hint)
    for where, value in leaves(block):
        if isinstance(value, float) and math.isnan(value):
            message = f"{_dotted(where)} is not a number"
            yield BlockProblem(where, message, "write a number, or leave it out")
    yield from method_problems(block, rewarded=rewarded)
    yield from idle_keys(block, evaluates=evaluates)
    yield from _token_problems(block)
    if rewarded is not None and not evaluates:  # a file's own rows are Axolotl's to judge
        yield from _idle_evaluation(block)
    if block.get("process_reward_model"):
        message = "llmpipe has no format for rows whose steps are marked"
        hint = "train on whole answers: reward_model: true"
        yield BlockProblem(("process_reward_model",), message, hint)
    yield from _adapter_problems(block)
    if block.get("save_safetensors") is False:
        message = "llmpipe reads safetensors only, not pickles"
        yield BlockProblem(("save_safetensors",), message, "remove it")
    if not block.get("rl"):
        yield from _best_problems(block, evaluates=evaluates)


def _idle_evaluation(block: Mapping[str, Any]) -> Iterator[BlockProblem]:
    """Yield keys that ask for evaluations, of a stage without rows for them."""
    if block.get("eval_strategy") == "no" or (
        any(map(block.get, _CHOOSING)) and not block.get("rl")
    ):
        return  # not asked for, or `_best_problems` tells it
    for key in ("eval_steps", "eval_strategy"):  # Axolotl would refuse them, and name val_set_size
        if block.get(key):
            yield BlockProblem((key,), "needs rows to evaluate on", "write eval_data")
    if block.get("evals_per_epoch"):
        message = "has no effect without rows to evaluate on"
        yield BlockProblem(("evals_per_epoch",), message, "write eval_data", warning=True)


def _token_problems(block: Mapping[str, Any]) -> Iterator[BlockProblem]:
    """Yield new tokens whose embeddings an adapter would leave as they are."""
    if not block.get("adapter") or block.get("lora_modules_to_save"):
        return
    trained = "peft_trainable_token_indices"
    for key in ("tokens", "added_tokens_overrides"):
        if block.get(key) and not (key != "tokens" and block.get(trained)):
            yield BlockProblem(
                (key,),
                "an adapter does not train the embeddings of new tokens",
                "add lora_modules_to_save: [embed_tokens, lm_head]"
                + (f", or name the tokens in {trained}" if key != "tokens" else ""),
            )


def _adapter_problems(block: Mapping[str, Any]) -> Iterator[BlockProblem]:
    """Yield ways to train an adapter that leave none which fits the base model."""
    if not block.get("adapter"):
        return
    started = block.get("peft_init_lora_weights")
    if isinstance(started, str) and started.startswith("pissa_niter"):
        yield BlockProblem(
            ("peft_init_lora_weights",),
            f"{started} changes the base at random and does not record how: merged or evaluated, "
            "the adapter would be another model",
            "write peft_init_lora_weights: pissa, which can be repeated",
        )
    if block.get("relora"):
        yield BlockProblem(
            ("relora",),
            "ReLoRA adds its adapters to the base while it trains, so that none is left to publish",
            "remove relora, or write adapter: null to train all weights",
        )


def _sharding_problems(
    config: TrainConfig, block: Mapping[str, Any], device: Device
) -> Iterator[BlockProblem]:
    name = block.get("fsdp_config")
    if isinstance(name, str) and name not in FSDP:
        known = ", ".join(FSDP)
        hint = did_you_mean(name, FSDP) or f"write a mapping, or one of {known}"
        yield BlockProblem(("fsdp_config",), f"{name!r} is not a short name", hint)
    if device.kind == "cpu":
        return  # they are left out there, which is said
    if fault := known_fault(block):
        hint = 'pip install "deepspeed>=0.19", or use zero3 or fsdp2'
        yield BlockProblem(("deepspeed",), fault, hint, warning=True)
    sharded = next(filter(block.get, ("deepspeed", "fsdp_config")), None)
    if sharded and config.launch.launcher == "python":
        yield BlockProblem(
            (sharded,),
            "the launcher python starts one process, over which nothing is sharded",
            "write launch: {launcher: torchrun, args: [--nproc_per_node=2]}",
            warning=True,
        )


def refuse(found: Iterable[BlockProblem]) -> None:
    """Raise the first error among findings.

    Raises:
        StageError: There is one.
    """
    for problem in found:
        if not problem.warning:
            where = f"{_dotted(problem.path)}: " if problem.path else ""
            raise StageError(f"{where}{problem.message}", hint=problem.hint)


def findings(config: TrainConfig, found: Iterable[BlockProblem], folder: Path) -> Iterator[Finding]:
    """Yield the findings with their places: in the stage's block, or else in its axolotl_file."""
    file = file_of(config, folder)
    for problem in found:
        in_file = file is not None and problem.field == "axolotl" and bool(problem.path)
        in_block = not in_file or problem.path[0] in config.axolotl
        place = (problem.field, *problem.path) if in_block else problem.path
        yield Finding(
            place,
            problem.message,
            problem.hint,
            warning=problem.warning,
            file=None if in_block else file,
        )


def noted(
    notes: Iterable[str], block: Mapping[str, Any], label: str | None = None
) -> Iterator[BlockProblem]:
    """Yield the notes of compiling as warnings, each at the first key that it names.

    ``label`` is the name of the ``axolotl_file`` in the notes.
    """
    for note in notes:
        text = note.removeprefix(f"{label}: ")
        words = re.findall(r"\w+", text)
        key = next((word for word in words if word in block or word in OWNED), "")
        text = text.removeprefix(key).lstrip(": ")
        yield BlockProblem((key,) if key else (), text, warning=True)


def file_of(config: TrainConfig, folder: Path) -> Path | None:
    """Return the path of the stage's ``axolotl_file``."""
    return folder / expanded(config.axolotl_file) if config.axolotl_file else None


def _best_problems(block: Mapping[str, Any], *, evaluates: bool) -> Iterator[BlockProblem]:
    """Yield reasons why the best checkpoint, or an early stop, would silently have no effect."""
    asked = [key for key in _CHOOSING if block.get(key)]
    if block.get("save_strategy") == "best" and not asked:
        yield BlockProblem(
            ("save_strategy",),
            "the best checkpoints are saved, but the weights of the last step are kept",
            "for the best: load_best_model_at_end: true with save_steps and eval_steps",
            warning=True,
        )
    if not asked:
        return
    evaluated, saved = _interval(block, "eval"), _interval(block, "save")
    if not evaluates:
        yield BlockProblem((asked[0],), "needs rows to evaluate on", "write eval_data")
    elif not evaluated or not saved or (saved % evaluated and min(evaluated, saved) >= 1):
        yield BlockProblem(
            (asked[0],),
            "Axolotl loads the best checkpoint only if evaluations and checkpoints are counted "
            "in steps and each checkpoint is evaluated",
            _WHOLE_STEPS + _EACH_EPOCH,
        )
    elif evaluated != saved and min(evaluated, saved) < 1:
        yield BlockProblem(
            (asked[0],),
            "a part of the run or of an epoch is rounded up to whole steps: unless both are the "
            "same part, checkpoints may be saved without an evaluation",
            _WHOLE_STEPS,
        )
    metric = str(block.get("metric_for_best_model") or "loss")
    yield from _metric_problems(block, metric)


def _metric_problems(block: Mapping[str, Any], metric: str) -> Iterator[BlockProblem]:
    """Yield reasons why the worst weights would be kept, or none could be chosen."""
    if metric.endswith("loss"):
        return
    key = "metric_for_best_model"
    if block.get("greater_is_better") is False:
        yield BlockProblem(
            ("greater_is_better",),
            f"Axolotl drops a false here, and the greatest {metric} would be taken for the best",
            "choose a metric whose name ends in loss, such as eval_loss",
        )
    elif metric.removeprefix("eval_") == "ppl":
        yield BlockProblem(
            (key,),
            f"the greatest {metric} would be taken for the best",
            f"write {key}: eval_loss, by which the order is the same",
        )
    elif not any(map(block.get, _MEASURES)):
        yield BlockProblem(
            (key,),
            f"evaluations give no {metric}, so that the first of them would end the run",
            f"write {key}: eval_loss",
        )


def _interval(block: Mapping[str, Any], what: str) -> float | None:
    """Return the interval in steps, or as a part of the run; None without a number."""
    settings = with_defaults(block)
    try:
        if steps := settings.get(f"{what}_steps"):
            return float(steps)
        often = settings.get(f"{what}s_per_epoch")
        epochs = float(settings.get("num_epochs", 1))  # Axolotl's default, beside max_steps
        part = 1 / (float(often) * epochs) if often else 1.0
    except (TypeError, ValueError, ZeroDivisionError):
        return None  # Axolotl reports what is wrong with it
    return part if part < 1 else None


def _dotted(where: Iterable[str | int]) -> str:
    return ".".join(map(str, where))
