"""Fine-tune a model with Axolotl: compile one readable configuration, run it, verify the product.

The stage's ``axolotl:`` block speaks Axolotl's own vocabulary; llmpipe sets only where data and
base model come from and where the result goes. What this machine cannot do is switched off and
said. A run that was stopped goes on from its last whole checkpoint. Only what a later stage can
use is published: weights, their configuration and the tokenizer; no checkpoints, no pickles, no
path of this machine, so that the same spec gives the same bytes again.

It does not check the block's keys (the engine asks `llmpipe.backends.axolotl_check` before a run),
and it does not train by any other program than Axolotl.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from llmpipe.backends import axolotl
from llmpipe.backends.axolotl_check import check_block, installed_version
from llmpipe.backends.axolotl_config import (
    KeyPath,
    is_path,
    owned_problems,
    packing_problem,
    paths_in,
    to_yaml,
)
from llmpipe.backends.device import detect
from llmpipe.contracts import (
    Finding,
    Input,
    Output,
    Ports,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
)
from llmpipe.errors import MissingDependencyError, StageError
from llmpipe.paths import expanded
from llmpipe.stages.train_compile import (
    HEADER,
    OUTPUT,
    Layout,
    base_model,
    compile_stage,
    is_offline,
    launch_of,
    merged_block,
    port_name,
    write_folder,
)
from llmpipe.stages.train_config import (
    CHOOSING_KEYS,
    REPORTING_KEYS,
    SAVING_KEYS,
    TrainConfig,
    made,
)
from llmpipe.stages.train_data import PREFERENCE
from llmpipe.stages.train_product import publish

DRIVEN_RL = PREFERENCE
"""The values of Axolotl's ``rl`` whose rows llmpipe knows how to hand over."""


class Train(StageDefaults):
    """The stage kind ``train``."""

    Config = TrainConfig
    VERSION = 1
    determinism = "same-machine"
    looks_around = True

    @staticmethod
    def ports(config: TrainConfig) -> Ports:
        """One output, by the block's ``adapter``; every path in the block is an input, too."""
        inputs = {
            "base_model": _base_input(config),
            "data": Input(("data",), config.data, ("dataset", "records")),
        }
        if config.eval_data is not None:
            inputs["eval_data"] = Input(("eval_data",), config.eval_data, ("dataset", "records"))
        if config.axolotl_file is not None:
            inputs["axolotl_file"] = Input(("axolotl_file",), config.axolotl_file, ("file",))
        for where, value in paths_in(config.axolotl).items():
            inputs[port_name(where)] = Input(("axolotl", *where), value, ("file",))
        product = made(config)
        output = Output(product, origin="base_model", trained=True)
        return Ports(inputs, {product: output}, default=product)

    @staticmethod
    def problems(config: TrainConfig) -> list[tuple[KeyPath, str]]:
        """Refuse keys that llmpipe owns and what this machine would train wrongly."""
        block = config.axolotl
        found = owned_problems(block)
        packing = packing_problem(block, detect())
        if packing:
            key = "sample_packing" if block.get("sample_packing") else "eval_sample_packing"
            found.append(((key,), f"{packing}; set {key}: false"))
        if isinstance(block.get("deepspeed"), str) and not is_path(block["deepspeed"]):
            found.append((("deepspeed",), f"a path starts with ./: ./{block['deepspeed']}"))
        if block.get("rl") and block["rl"] not in DRIVEN_RL:
            found.append((("rl",), f"not driven by llmpipe; it drives {', '.join(DRIVEN_RL)}"))
        if block.get("save_safetensors") is False:
            found.append((("save_safetensors",), "llmpipe reads safetensors only, not pickles"))
        if config.launch.args and config.launch.launcher == "python":
            return [*_under("axolotl", found), (("launch", "args"), "launcher: python takes none")]
        return _under("axolotl", found)

    @staticmethod
    def fingerprint(config: TrainConfig) -> dict[str, Any]:
        """Drop what only reports; add the class of device that trains and its number format."""
        fields = semantic_fields(config, without=frozenset({"allow_unknown_axolotl"}))
        block = config.axolotl
        chooses = CHOOSING_KEYS & block.keys() or block.get("save_strategy") == "best"
        silent = REPORTING_KEYS
        if not chooses and config.axolotl_file is None:  # a file may hold one of these keys
            silent = REPORTING_KEYS | SAVING_KEYS
        fields["axolotl"] = {key: value for key, value in block.items() if key not in silent}
        device = detect()
        fields["device"] = {"kind": device.kind, "dtype": device.dtype}
        return fields

    @staticmethod
    def tools(config: TrainConfig) -> tuple[str, ...]:
        return ("axolotl", "transformers", "trl", "peft", "torch", "datasets", "accelerate")

    @staticmethod
    def preflight(config: TrainConfig, folder: Path, memo: Path) -> list[Finding]:
        """Hold the block, its file included, against the installed Axolotl, unless told not to."""
        if config.allow_unknown_axolotl:
            return []
        file = (folder / expanded(config.axolotl_file)) if config.axolotl_file else None
        try:
            block, _ = merged_block(config, file)
            result = check_block(block, memo_dir=memo)
        except StageError as error:
            field = "axolotl_file" if config.axolotl_file else "axolotl"
            return [Finding((field,), error.message, error.hint)]
        if not result.installed:
            message = "its Axolotl settings are unchecked: Axolotl is not installed"
            return [Finding(("axolotl",), message, axolotl.INSTALL_HINT, missing=True)]
        return [Finding(("axolotl", *p.path), p.message, p.hint) for p in result.problems]

    @staticmethod
    def compile_to(ctx: StageContext[TrainConfig], out: Path) -> list[str]:
        """Write a folder that trains the same without llmpipe: see `write_folder`."""
        return write_folder(ctx, out)

    @staticmethod
    def run(ctx: StageContext[TrainConfig]) -> StageResult:
        """Compile, train (or go on), verify, publish."""
        require_axolotl()
        compiled = compile_stage(ctx, Layout(ctx.work))
        for note in compiled.notes:
            ctx.warn(note)
        file = ctx.work / "axolotl.yml"
        file.write_text(to_yaml(compiled.config, header=HEADER.format(ctx.stage)), "utf-8")
        outcome = _train(ctx, file, compiled.config)
        for sentence in outcome.dropped:
            ctx.warn(f"Axolotl left rows out: {sentence}")
        product = made(ctx.config)
        target = ctx.out / product
        publish(ctx.work / OUTPUT, base_model(ctx).path, target, compiled.config)
        return StageResult({product: target}, _metrics(outcome), _summary(outcome))


def require_axolotl() -> None:
    """Make sure that Axolotl is installed, without importing it.

    Raises:
        MissingDependencyError: it is not.
    """
    if installed_version() is None:
        raise MissingDependencyError(
            "training needs Axolotl, which is not installed", hint=axolotl.INSTALL_HINT
        )


def _train(
    ctx: StageContext[TrainConfig], file: Path, settings: Mapping[str, Any]
) -> axolotl.Outcome:
    """Run the training from its last whole checkpoint, or from the start."""
    output = ctx.work / OUTPUT
    for rebuilt in ("prepared", "datasets-cache"):  # never trusted after a crash
        shutil.rmtree(ctx.work / rebuilt, ignore_errors=True)
    resume = axolotl.last_checkpoint(output)
    start, history = axolotl.checkpoint_state(resume)
    if resume:
        ctx.warn(f"going on from the checkpoint of step {start}")
    else:
        shutil.rmtree(output, ignore_errors=True)
    every = settings.get("logging_steps", 1)
    watcher = axolotl.Watcher(
        every=every if isinstance(every, int) and every > 0 else 1,
        first=bool(settings.get("rl")),
        start=start,
        on_step=lambda step, total, loss: ctx.progress(step, total, f"loss {loss:.4g}"),
    )
    launch = launch_of(ctx, reveal=True)
    env = axolotl.environment(
        launch, threads=ctx.threads, work=ctx.work, offline=is_offline(settings)
    )
    outcome = axolotl.train(file, launch, watcher, env=env, cwd=ctx.work, resume=resume)
    if outcome.steps < outcome.total and not settings.get("early_stopping_patience"):
        raise StageError(
            f"training ended at step {outcome.steps} of {outcome.total}",
            hint="the stage's log says why; running it again goes on from the last checkpoint",
        )
    last = axolotl.checkpoint_state(axolotl.last_checkpoint(output))[1]
    return outcome.with_history(history, last)


def _metrics(outcome: axolotl.Outcome) -> dict[str, Any]:
    """Give a training's figures; curves are lists of [step, loss]."""
    figures: dict[str, Any] = {"steps": outcome.steps}
    for name, curve in (("loss", outcome.loss), ("eval_loss", outcome.eval_loss)):
        if curve:
            figures[name] = [list(point) for point in curve]
            figures[f"final_{name}"] = curve[-1][1]
    return figures


def _summary(outcome: axolotl.Outcome) -> str:
    """Say how the loss went, by the means of its first and last fifth: single steps are noise."""
    losses = [loss for _, loss in outcome.loss]
    if not losses:
        return f"{outcome.steps} steps"
    fifth = -(-len(losses) // 5)
    return f"{outcome.steps} steps, loss {fmean(losses[:fifth]):.2f} → {fmean(losses[-fifth:]):.2f}"


def _base_input(config: TrainConfig) -> Input:
    field, value = ("base_model",), config.base_model
    if config.adapter_start == "continue":
        return Input(field, value, ("adapter",))
    if config.adapter_start == "merge":
        return Input(field, value, ("model",))
    choose = "training on an adapter needs adapter_start: merge or adapter_start: continue"
    return Input(field, value, ("model",), refuse={"adapter": choose})


def _under(name: str, found: list[tuple[KeyPath, str]]) -> list[tuple[KeyPath, str]]:
    return [((name, *where), message) for where, message in found]
