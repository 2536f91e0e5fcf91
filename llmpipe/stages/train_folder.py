"""Write a training stage as a folder that trains without llmpipe, here or on another machine.

The folder trains as the stage would: `llmpipe.stages.train_compile` compiles both. A folder for
another device names models of the hub by their ids, and leaves nothing out that this machine lacks;
the installed Axolotl judges it with the capabilities of that device.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl import training as axolotl
from llmpipe.backends.axolotl.check import check_block
from llmpipe.backends.axolotl.config import to_yaml
from llmpipe.backends.axolotl.modules import python_path
from llmpipe.contracts import SECRET, StageContext
from llmpipe.stages.train_checkpoint import place_checkpoint
from llmpipe.stages.train_compile import (
    HEADER,
    Layout,
    base_model,
    compile_stage,
    device_of,
    is_offline,
    launch_of,
    merged_block,
)
from llmpipe.stages.train_config import TrainConfig
from llmpipe.stages.train_review import refuse

_RUN_SH = """\
#!/bin/sh
# Trains as the stage would, without llmpipe. The result is in ./output.
set -eu
cd "$(dirname "$0")"
set -a
. ./axolotl.env
set +a
export PYTHONPATH="$PWD/plugins${{PYTHONPATH:+:$PYTHONPATH}}"
exec {command}
"""


def write_folder(ctx: StageContext[TrainConfig], out: Path) -> list[str]:
    """Write a folder that trains the same *without llmpipe*; return notes for the user.

    The folder holds ``axolotl.yml``, the rows under ``data/``, files that the block names under
    ``files/``, the plugins of a run under ``plugins/``, the environment in ``axolotl.env``, and
    ``run.sh``, which writes to ``output/``. A checkpoint to go on from lies under
    ``continue-from/``. ``run.sh`` takes secrets from the environment. `StageContext.target` says
    which machine it is for.

    Raises:
        StageError: The settings are wrong, or Axolotl refuses them for that machine's device.
    """
    out.mkdir(parents=True, exist_ok=True)
    compiled = compile_stage(ctx, Layout(out, relative=True))
    header = HEADER.format(ctx.stage) + "\nRun it with ./run.sh, or as run.sh does."
    (out / "axolotl.yml").write_text(to_yaml(compiled.config, header=header), "utf-8")
    launch = ctx.config.launch
    offline = is_offline(compiled.config) and base_model(ctx).hub is None
    environment = {
        **axolotl.portable_environment(offline=offline),
        **({} if ctx.target.device else {"OMP_NUM_THREADS": str(ctx.threads)}),
        "HF_DATASETS_CACHE": "./datasets-cache",
        **launch.env,
    }
    lines = [f"{name}={shell_value(value)}" for name, value in sorted(environment.items())]
    (out / "axolotl.env").write_text("\n".join(lines) + "\n", "utf-8")
    resume, told = None, list[str]()
    if ctx.config.continue_from is not None:
        resume, told = place_checkpoint(ctx, compiled.config, out)
    words = axolotl.arguments("axolotl.yml", launch_of(ctx, reveal=False), resume=resume)
    script = out / "run.sh"
    script.write_text(_RUN_SH.format(command=shlex.join(["axolotl", *words])), "utf-8")
    script.chmod(0o755)
    notes = list(_target_notes(ctx, compiled.config)) if ctx.target.device else []
    return [*compiled.notes, *told, *notes, *_merge_notes(compiled.config)]


def _target_notes(ctx: StageContext[TrainConfig], settings: Mapping[str, Any]) -> Iterator[str]:
    """Ask Axolotl about a folder for a named device; yield what the user should know about it.

    Raises:
        StageError: Axolotl refuses it.
    """
    base = base_model(ctx)
    if base.hub is not None:
        yield f"{base.hub} stays a hub id: whether it has a chat template was not looked up"
    elif ctx.target.base_model == "path":
        yield (
            f"base_model: {base.path} is a path on this machine: --base-model copy puts it into "
            "the folder, --base-model relative names it relative to the folder"
        )
    device = device_of(ctx)
    if device.count > 1 and ctx.config.launch.launcher == "python":
        yield (
            f"the launcher python starts one process, on one of {device.count} GPUs; write launch: "
            f"{{launcher: torchrun, args: [--nproc_per_node={device.count}]}}"
        )
    if modules := ctx.config.launch.env.get("PYTHONPATH"):
        yield (
            f"launch.env.PYTHONPATH, {modules}, is a path on this machine: copy these modules to "
            "the machine that trains, and name their folder there in axolotl.env"
        )
    if ctx.config.allow_unknown_axolotl:
        return
    given = ctx.inputs.get("axolotl_file")
    block, _ = merged_block(ctx.config, given.path if given else None)
    with tempfile.TemporaryDirectory() as memo:
        result = check_block(
            block,
            settings,
            memo_dir=Path(memo),
            dataset=ctx.config.dataset,
            modules=python_path(ctx.config.launch.env),
            device=device,
        )
    if not result.installed:
        yield f"Axolotl is not installed: its settings are unchecked; {axolotl.INSTALL_HINT}"
    refuse(result.problems)
    for problem in result.problems:
        yield f"{'.'.join(map(str, problem.path))}: {problem.message}"


def _merge_notes(settings: Mapping[str, Any]) -> list[str]:
    """Return what ``axolotl merge-lora`` would lose of the adapter that a folder trains."""
    if not settings.get("adapter"):
        return []
    edges = {"embed_tokens", "lm_head"}
    named = {
        key: edges & set(value)
        for key in ("lora_modules_to_save", "lora_target_modules")
        if isinstance(value := settings.get(key), list)
    }
    lost = [f"{key}: {', '.join(sorted(names))}" for key, names in named.items() if names]
    if settings.get("peft_trainable_token_indices"):
        lost.append("peft_trainable_token_indices")
    notes = []
    if lost:
        notes.append(
            f"axolotl merge-lora silently drops {' and '.join(lost)} of models with tied "
            "embeddings; the stage merge keeps them"
        )
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        notes.append(
            "axolotl merge-lora adds the adapter to the base as it was before it was rounded: that "
            "is not the model that was trained; the stage merge rounds the base first"
        )
    return notes


def shell_value(value: str) -> str:
    """Quote a value for a shell; a secret becomes the variable of its name, which must be set."""
    parts = SECRET.split(value)  # text, name, text, name, …, text
    quoted = [shlex.quote(text) if text else "" for text in parts[::2]]
    names = [f'"${{{name}:?set {name}}}"' for name in parts[1::2]]
    joined = "".join(a + b for a, b in zip(quoted, [*names, ""], strict=True))
    return joined or "''"
