"""Fine-tune a model with Axolotl: compile one readable configuration, run it, verify the result.

The ``axolotl:`` block uses Axolotl's own keys; llmpipe only sets the data, the base model and the
output. Settings that this machine does not support are switched off and reported. A stopped run
continues from its last complete checkpoint. Only what later stages use is published: weights, their
configuration and the tokenizer, without pickles or paths of this machine, so that the same spec
gives the same bytes; on request also the last checkpoint (`llmpipe.stages.train_checkpoint`).

The settings are checked before a run by `llmpipe.stages.train_review` and, with the installed
Axolotl, by `llmpipe.backends.axolotl.check`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl import training as axolotl
from llmpipe.backends.axolotl.check import check_block, installed_version
from llmpipe.backends.axolotl.checkpoints import checkpoint_step, last_checkpoint
from llmpipe.backends.axolotl.config import KeyPath, owned_problems, to_yaml
from llmpipe.backends.axolotl.modules import python_path
from llmpipe.backends.axolotl.needs import packages_of
from llmpipe.backends.axolotl.paths import paths_in
from llmpipe.backends.device import detect
from llmpipe.backends.huggingface.quantization import bits_of, quantization_of
from llmpipe.contracts import (
    ArtifactType,
    Compilable,
    Effort,
    EstimateContext,
    Estimates,
    Finding,
    Input,
    Needs,
    Output,
    Ports,
    Showable,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
)
from llmpipe.errors import MissingDependencyError, StageError
from llmpipe.needs import Given, Need, packages
from llmpipe.stages.train_checkpoint import (
    CHECKPOINT,
    WEIGHTS_ALONE,
    checkpoint_problems,
    continued,
    given_checkpoint,
    no_steps_left,
    of_others,
    publish_checkpoint,
)
from llmpipe.stages.train_compile import (
    HEADER,
    OUTPUT,
    Layout,
    base_model,
    compile_stage,
    compile_unseen,
    is_offline,
    launch_of,
    merged_block,
)
from llmpipe.stages.train_config import (
    CHOOSING_KEYS,
    REPORTING_KEYS,
    SAVING_KEYS,
    TrainConfig,
    made,
    port_name,
)
from llmpipe.stages.train_effort import effort
from llmpipe.stages.train_entry import entry_problems
from llmpipe.stages.train_estimate import estimate
from llmpipe.stages.train_folder import write_folder
from llmpipe.stages.train_launch import launch_problems, launcher_findings
from llmpipe.stages.train_metrics import metrics, not_the_best, summary, unlearned
from llmpipe.stages.train_product import publish, verify_kept
from llmpipe.stages.train_review import (
    complaints,
    file_of,
    findings,
    noted,
    setting_problems,
)
from llmpipe.stages.train_rewards import (
    reward_findings,
    reward_inputs,
    reward_problems,
    try_rewards,
)
from llmpipe.stages.train_show import show_rows
from llmpipe.stages.train_tracking import (
    TRACKING,
    keep_tracking,
    kept_trackers,
    require_no_credentials,
    tracking_environment,
    tracking_notes,
)

NAMED: tuple[ArtifactType, ...] = ("file", "model", "adapter")
"""Artifact types that a path in the block may have; the path is passed to Axolotl."""


class Train(StageDefaults, Compilable, Showable, Estimates):
    """The stage kind ``train``."""

    Config = TrainConfig
    VERSION = 4
    determinism = "same-machine"
    reads_environment = True

    @staticmethod
    def ports(config: TrainConfig) -> Ports:
        """Return the model or adapter, and what trackers write; paths in the block are inputs."""
        inputs = {
            "base_model": _base_input(config),
            "data": Input(("data",), config.data, ("dataset", "records")),
        }
        if config.eval_data is not None:
            inputs["eval_data"] = Input(("eval_data",), config.eval_data, ("dataset", "records"))
        if config.axolotl_file is not None:
            inputs["axolotl_file"] = Input(("axolotl_file",), config.axolotl_file, ("file",))
        for where, value in paths_in(config.axolotl).items():
            inputs[port_name(where)] = Input(("axolotl", *where), value, NAMED)
        inputs |= reward_inputs(config)
        if config.continue_from is not None:
            refuse = dict.fromkeys(("adapter", "model"), WEIGHTS_ALONE)
            field = ("continue_from",)
            inputs[CHECKPOINT] = Input(field, config.continue_from, ("file",), refuse=refuse)
        product = made(config)
        trained = Output(product, origin="base_model", trained=True)
        outputs: dict[str, Output] = {product: trained}
        if kept_trackers(config.axolotl, config.launch.env):
            outputs[TRACKING] = Output("file", optional=True)
        if config.keep_checkpoint:
            outputs[CHECKPOINT] = Output("file")
        return Ports(inputs, outputs, default=product)

    @staticmethod
    def problems(config: TrainConfig) -> list[tuple[KeyPath, str]]:
        """Refuse keys that llmpipe owns and, without an ``axolotl_file``, wrong settings."""
        block = config.axolotl
        found = owned_problems(block)
        if config.axolotl_file is None:
            evaluates, rewarded = config.eval_data is not None, bool(config.rewards)
            found += setting_problems(block, evaluates=evaluates, rewarded=rewarded)
        order = list[str | int](block)
        told: list[tuple[KeyPath, str]] = [
            (("axolotl", *p.path), f"{p.message}; {p.hint}" if p.hint else p.message)
            for p in sorted(found, key=lambda p: order.index(p.path[0]))
            if not p.warning
        ]
        if config.axolotl_file is None:
            entry = entry_problems(block, config.dataset)
            told += [(("dataset", *path), text) for path, text in entry]
        told += reward_problems(config)
        told += checkpoint_problems(config)
        told += launch_problems(config)
        return told

    @staticmethod
    def fingerprint(config: TrainConfig) -> dict[str, Any]:
        """Drop keys that only affect reporting; add the device class and its number format."""
        fields = semantic_fields(config, without=frozenset({"allow_unknown_axolotl"}))
        if not config.rewards:
            del fields["rewards"]  # the keys of trainings without rewards stay as they were
        for name in ("continue_from", "keep_checkpoint"):
            if not fields[name]:
                del fields[name]  # and so do those of trainings without checkpoints
        block = config.axolotl
        chooses = CHOOSING_KEYS & block.keys() or block.get("save_strategy") == "best"
        chooses = chooses or config.keep_checkpoint  # its state tells when it was saved and logged
        silent = REPORTING_KEYS
        if not chooses and config.axolotl_file is None:  # a file may hold one of these keys
            silent = REPORTING_KEYS | SAVING_KEYS
        fields["axolotl"] = {key: value for key, value in block.items() if key not in silent}
        device = detect()
        fields["device"] = {"kind": device.kind, "dtype": device.dtype}
        return fields

    @staticmethod
    def effort(fingerprint: Mapping[str, Any]) -> Effort | None:
        """Count rows in steps, or passes over the data; an Axolotl file may set either."""
        return effort(fingerprint)

    @staticmethod
    def tools(config: TrainConfig) -> tuple[str, ...]:
        return ("axolotl", "transformers", "trl", "peft", "torch", "datasets", "accelerate")

    @staticmethod
    def needs(config: TrainConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        try:
            block, _ = merged_block(config, file_of(config, Path()))
        except StageError:  # the review reports it
            block = config.axolotl
        return packages("axolotl", "torch", "transformers", *packages_of(block))

    @staticmethod
    def review(config: TrainConfig, folder: Path) -> list[Finding]:
        """Check the merged block for settings that are wrong, ignored or replaced in the run."""
        try:
            block, _ = merged_block(config, file_of(config, folder))
            told = list(findings(config, complaints(config, block, folder), folder))
            told += reward_findings(config, folder)
            if all(finding.warning for finding in told):
                compiled, _ = compile_unseen(config, file_of(config, folder))
                notes = noted(compiled.notes, block, config.axolotl_file)
                told += [replace(note, in_run=True) for note in findings(config, notes, folder)]
        except StageError as error:
            field = "axolotl_file" if config.axolotl_file else "axolotl"
            return [Finding((field,), error.message, error.hint)]
        return told

    @staticmethod
    def preflight(config: TrainConfig, folder: Path, memo: Path) -> list[Finding]:
        """Check what the run will compile against the installed Axolotl, unless switched off."""
        if config.allow_unknown_axolotl:
            return []
        try:
            compiled, block = compile_unseen(config, file_of(config, folder))
            modules = python_path(config.launch.env)
            result = check_block(
                block, compiled.config, memo_dir=memo, dataset=config.dataset, modules=modules
            )
        except StageError as error:
            return [Finding(("axolotl",), error.message, error.hint)]
        told = list(launcher_findings(config))
        if not result.installed:
            message = "its Axolotl settings are unchecked: Axolotl is not installed"
            return [Finding(("axolotl",), message, axolotl.INSTALL_HINT, missing=True)]
        return [*told, *findings(config, result.problems, folder)]

    @staticmethod
    def estimate(config: TrainConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
        """Run a step on fake tensors, or take what is remembered of that."""
        return estimate(config, inputs, asked)

    @staticmethod
    def compile_to(ctx: StageContext[TrainConfig], out: Path) -> list[str]:
        """Write a folder that trains the same without llmpipe: see `write_folder`."""
        return write_folder(ctx, out)

    @staticmethod
    def show_rows(ctx: StageContext[TrainConfig], rows: int) -> list[str]:
        """Return the first rows as the installed Axolotl tokenizes them: see `train_show`."""
        require_axolotl()
        return show_rows(ctx, rows)

    @staticmethod
    def run(ctx: StageContext[TrainConfig]) -> StageResult:
        """Compile, train (or continue), verify, publish."""
        require_axolotl()
        compiled = compile_stage(ctx, Layout(ctx.work))
        own = ctx.config.axolotl
        variables = ctx.config.launch.env
        require_no_credentials(compiled.config, ctx.config.axolotl_file or ctx.stage)
        lost = tracking_notes(own, compiled.config, variables)
        for note in (*compiled.notes, *_other_base(ctx, compiled.config), *lost):
            ctx.warn(note)
        file = ctx.work / "axolotl.yml"
        file.write_text(to_yaml(compiled.config, header=HEADER.format(ctx.stage)), "utf-8")
        outcome = _train(ctx, file, compiled.config)
        ended, output = outcome.ended, ctx.work / OUTPUT
        for sentence in outcome.dropped:
            ctx.warn(f"Axolotl left rows out: {sentence}")
        for sentence in outcome.labels.warnings:
            ctx.warn(sentence)
        if outcome.labels.shown:
            ctx.emit({"event": "trained-rows", "rows": outcome.labels.shown})
        for said in (not_the_best(ended, compiled.config), unlearned(ended)):
            if said:
                ctx.warn(said)
        if ended.loaded and (uncompared := verify_kept(output, output / ended.loaded)):
            ctx.warn(uncompared)
        product = made(ctx.config)
        target = ctx.out / product
        publish(output, base_model(ctx).path, target, compiled.config)
        outputs: dict[str, Path] = {product: target}
        if trackers := kept_trackers(own, variables):
            outputs[TRACKING] = ctx.out / TRACKING
            for said in keep_tracking(ctx.work, outputs[TRACKING], trackers):
                ctx.warn(said)
        if ctx.config.keep_checkpoint:
            kept = publish_checkpoint(ctx, output, ended.step, ctx.out / CHECKPOINT)
            outputs[CHECKPOINT] = kept
        return StageResult(outputs, metrics(ended, outcome.labels), summary(ended))


def require_axolotl() -> None:
    """Check that Axolotl is installed, without importing it.

    Raises:
        MissingDependencyError: it is not.
    """
    if installed_version() is None:
        raise MissingDependencyError(
            "training needs Axolotl, which is not installed", hint=axolotl.INSTALL_HINT
        )


def _other_base(ctx: StageContext[TrainConfig], settings: Mapping[str, Any]) -> list[str]:
    """Warn if an adapter continues on a base with another quantization than in its training."""
    if ctx.config.adapter_start != "continue":
        return []
    start = ctx.input("base_model")
    before = bits_of(quantization_of(start.path))
    kind = settings.get("adapter")
    now = 4 if kind == "qlora" and settings.get("load_in_4bit") else None
    now = 8 if kind == "lora" and settings.get("load_in_8bit") else now
    if before == now:
        return []
    was, will = (f"rounded to {bits} bits" if bits else "not rounded" for bits in (before, now))
    return [
        f"{start.label} was trained on a base that is {was}, and continues on one that is {will}"
    ]


def _train(
    ctx: StageContext[TrainConfig], file: Path, settings: Mapping[str, Any]
) -> axolotl.Outcome:
    """Run the training from its last complete checkpoint, or from the start."""
    output = ctx.work / OUTPUT
    for rebuilt in ("prepared", "datasets-cache"):  # never trusted after a crash
        shutil.rmtree(ctx.work / rebuilt, ignore_errors=True)
    resume = last_checkpoint(output)
    start = checkpoint_step(resume)
    if resume is None and ctx.config.continue_from is not None:
        for earlier in (output, ctx.work / TRACKING):
            shutil.rmtree(earlier, ignore_errors=True)
        resume = given_checkpoint(ctx.input(CHECKPOINT), settings)
        start = checkpoint_step(resume)
        for told in (continued(resume, start), *of_others(ctx, resume)):
            ctx.warn(told)
    elif resume:
        ctx.warn(f"continuing from the checkpoint of step {start}")
    else:
        if any(output.glob("checkpoint-*")):
            ctx.warn("the only checkpoint left is from the end of training: training starts again")
        for earlier in (output, ctx.work / TRACKING):
            shutil.rmtree(earlier, ignore_errors=True)
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
    try_rewards(ctx, ctx.work, env)
    env = {**tracking_environment(ctx.work, settings, launch.env), **env}
    outcome = axolotl.train(
        file, launch, watcher, env=env, cwd=ctx.work, output=output, resume=resume
    )
    ended = outcome.ended
    if ctx.config.continue_from is not None and ended.step <= start:
        raise no_steps_left(ctx.input(CHECKPOINT).label, start, ended.planned)
    if ended.step < ended.planned and not ended.stopped_early:
        raise StageError(
            f"training ended at step {ended.step} of {ended.planned}",
            hint="the stage's log says why; the next run continues from the last checkpoint",
        )
    return outcome


def _base_input(config: TrainConfig) -> Input:
    field, value = ("base_model",), config.base_model
    if config.adapter_start == "continue":
        return Input(field, value, ("adapter",))
    if config.adapter_start == "merge":
        return Input(field, value, ("model",))
    choose = "training on an adapter needs adapter_start: merge or adapter_start: continue"
    return Input(field, value, ("model",), refuse={"adapter": choose})
