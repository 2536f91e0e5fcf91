"""Compile a ``train`` stage and its inputs to a configuration and files for Axolotl.

A run (`llmpipe.stages.train`) and a folder that trains without llmpipe (`train_folder`) both use
`compile_stage`, so that they train the same.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl import training as axolotl
from llmpipe.backends.axolotl.config import (
    Compiled,
    DataFile,
    KeyPath,
    Sources,
    compile_config,
    merge_blocks,
)
from llmpipe.backends.axolotl.file import read_axolotl_file
from llmpipe.backends.axolotl.paths import paths_in, replace_paths
from llmpipe.backends.axolotl.sharding import FOLDER, spelled_out
from llmpipe.backends.device import Device, detect, named_device
from llmpipe.backends.huggingface.chat_tokens import has_chat_template
from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.stages.train_config import TrainConfig, made, port_name
from llmpipe.stages.train_data import Prepared, expected_entry, prepare
from llmpipe.stages.train_entry import lost_entry_keys
from llmpipe.stages.train_review import complaints, refuse
from llmpipe.stages.train_rewards import expected_rewards, place_rewards

OUTPUT = "output"
"""The folder inside a training's own folder into which Axolotl writes."""

HEADER = "Compiled by llmpipe from the stage {!r}: what Axolotl is run with. Not read back."


@dataclass(frozen=True, slots=True)
class Layout:
    """The locations of a training's parts: absolute, or relative to a folder."""

    folder: Path
    relative: bool = False

    def name(self, part: str) -> str:
        """Return the text that the configuration uses for a part of the folder."""
        return part if self.relative else str(self.folder / part)


def merged_block(
    config: TrainConfig, axolotl_file: Path | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the stage's whole Axolotl block, including its file, and what was left out.

    Raises:
        StageError: The file is not a YAML mapping, or makes something other than the stage
            declares.
    """
    if axolotl_file is None:
        return dict(config.axolotl), []
    label = config.axolotl_file or axolotl_file.name
    from_file = read_axolotl_file(axolotl_file, label)
    block, notes = merge_blocks(from_file, config.axolotl, label=label)
    notes += lost_entry_keys(from_file, config.dataset, label)
    if bool(block.get("adapter")) != (made(config) == "adapter"):
        raise StageError(
            f"{label} trains no adapter, but the stage would give one",
            hint="write adapter: null in the stage's axolotl block",
        )
    return block, notes


def compile_stage(ctx: StageContext[TrainConfig], layout: Layout) -> Compiled:
    """Write the data and compile the configuration, for a run or for a folder.

    Raises:
        StageError: The settings are wrong.
    """
    config = ctx.config
    given = ctx.inputs.get("axolotl_file")
    block, notes = merged_block(config, given.path if given else None)
    device = device_of(ctx)
    refuse(complaints(config, block, ctx.spec_dir, device))
    block = replace_paths(block, {w: _file_path(ctx, w, layout) for w in paths_in(block)})
    block = spelled_out(block, layout.folder / FOLDER, layout.name(FOLDER))  # no input of the stage
    base = ctx.input("base_model")
    train = _data(ctx, "data", "train.parquet", layout, block)
    test = _data(ctx, "eval_data", "eval.parquet", layout, block) if config.eval_data else None
    sources = Sources(
        base_model=_named(ctx, base_model(ctx), layout, "base-model"),
        train=train.file,
        test=test.file if test else None,
        output_dir=layout.name(OUTPUT),
        prepared=layout.name("prepared"),
        adapter=_named(ctx, base, layout, "adapter")
        if config.adapter_start == "continue"
        else None,
        allow_untrained=config.allow_untrained,
        rewards=place_rewards(ctx, layout.folder),
    )
    axolotl.write_plugins(layout.folder)
    compiled = compile_config(_pinned(ctx, block), sources, device)
    notes += train.notes + (test.notes if test else [])
    return Compiled(compiled.config, notes + compiled.notes)


def compile_unseen(
    config: TrainConfig, axolotl_file: Path | None, device: Device | None = None
) -> tuple[Compiled, dict[str, Any]]:
    """Compile what a run will compile, before its inputs exist; return the block as well.

    Everything but the paths of model, data and output is as in the run. The device is
    this machine's, unless another ``device`` is given.

    Raises:
        StageError: As `merged_block`, or the block would train wrongly on this device.
    """
    block, notes = merged_block(config, axolotl_file)
    rows = DataFile("train.parquet", expected_entry(block, config.dataset))
    sources = Sources(
        base_model="base_model",
        train=rows,
        test=replace(rows, path="eval.parquet") if config.eval_data else None,
        output_dir=OUTPUT,
        prepared="prepared",
        adapter="adapter" if config.adapter_start == "continue" else None,
        allow_untrained=config.allow_untrained,
        rewards=expected_rewards(config),
    )
    compiled = compile_config(spelled_out(block, None), sources, device or detect())
    return Compiled(compiled.config, notes + compiled.notes), spelled_out(block, None)


def device_of(ctx: StageContext[TrainConfig]) -> Device:
    """Return the device that is compiled for: this machine's, unless the folder is for another."""
    return named_device(ctx.target.device) if ctx.target.device else detect()


def base_model(ctx: StageContext[TrainConfig]) -> Artifact:
    """Return the model whose weights training starts from; for an adapter trained on, its base."""
    given = ctx.input("base_model")
    if given.type != "adapter":
        return given
    if given.base is None:
        raise StageError(f"{given.label} does not say which model it was trained on")
    return given.base


def _named(ctx: StageContext[TrainConfig], model: Artifact, layout: Layout, part: str) -> str:
    """Return what the configuration calls a model or an adapter; a folder may get a copy."""
    if model.hub is not None:
        return model.hub.partition("@")[0]
    if ctx.target.base_model == "copy":
        shutil.copytree(model.path, layout.folder / part)
        return f"./{part}"
    if ctx.target.base_model == "relative":
        return os.path.relpath(model.path, os.path.realpath(ctx.target.folder or layout.folder))
    return str(model.path)


def _pinned(ctx: StageContext[TrainConfig], block: Mapping[str, Any]) -> dict[str, Any]:
    """Return the block with the revision of a base model that the hub holds."""
    revision = (base_model(ctx).hub or "").partition("@")[2]
    return {**({"revision_of_model": revision} if revision else {}), **block}


def _data(
    ctx: StageContext[TrainConfig], port: str, name: str, layout: Layout, block: Mapping[str, Any]
) -> Prepared:
    folder = layout.folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    path = layout.name(f"data/{name}")
    data = prepare(ctx.input(port), folder / name, block, path, ctx.config.dataset)
    unknown = data.speakers.notes(ctx.config.allow_untrained)
    if data.chat and not _writes_chats(ctx, block):
        raise StageError(
            f"{ctx.input(port).label} holds chats, but {ctx.input('base_model').label} has no chat "
            "template to write them by",
            hint="write chat_template: chatml in the stage's axolotl block, or another template "
            "that Axolotl knows; Alpaca rows can train on Alpaca's prompt: dataset: {type: alpaca}",
        )
    return replace(data, notes=data.notes + unknown)


def _writes_chats(ctx: StageContext[TrainConfig], settings: Mapping[str, Any]) -> bool:
    """Return whether the settings name a chat template, or the tokenizer has one."""
    named = settings.get("chat_template") or settings.get("chat_template_jinja")
    if named and named != "tokenizer_default":
        return True
    tokenizer = settings.get("tokenizer_config")
    elsewhere = isinstance(tokenizer, str) and not Path(tokenizer).is_dir()  # on the hub
    elsewhere = elsewhere or (not tokenizer and base_model(ctx).hub is not None)
    if elsewhere or settings.get("tokenizer_use_mistral_common"):
        return True
    return has_chat_template(Path(tokenizer) if tokenizer else base_model(ctx).path)


def _file_path(ctx: StageContext[TrainConfig], where: KeyPath, layout: Layout) -> str:
    """Return the path of a file that the block names; a movable folder gets a copy."""
    source = ctx.input(port_name(where)).path
    if not layout.relative:
        return str(source)
    name = f"files/{'-'.join(map(str, where))}-{source.name}"
    target = layout.folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
    return f"./{name}"


def launch_of(ctx: StageContext[TrainConfig], *, reveal: bool) -> axolotl.Launch:
    launch = ctx.config.launch
    env = {k: ctx.reveal(v) if reveal else v for k, v in launch.env.items()}
    return axolotl.Launch(launch.launcher, tuple(launch.args), env)


def is_offline(settings: Mapping[str, Any]) -> bool:
    """Return whether the run works without the hub: it neither pushes to it nor reads from it."""
    online = ("hub_model_id", "push_dataset_to_hub", "bench_dataset", "trackio_space_id")
    return not any(settings.get(key) for key in online)
