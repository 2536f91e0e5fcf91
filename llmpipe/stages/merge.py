"""Merge an adapter into the model that it was trained on; verify that the weights moved.

It is PEFT's own ``merge_and_unload``, called here rather than through ``axolotl merge-lora``: the
same arithmetic, without the half minute that importing Axolotl costs, and without its rewriting of
the tokenizer. The model is held once in memory, in the number format of the base model, on the
CPU; the sum of each layer is made in float32. Tokenizer and generation settings come as files
from the adapter and the base, untouched.

It does not merge adapters of reward models, and it reads no pickled weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from llmpipe.backends.tensors import look, tensors, weight_files
from llmpipe.contracts import (
    Artifact,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    write_json,
)
from llmpipe.errors import StageError
from llmpipe.stages.train_product import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    TOKENIZER_FILES,
    differing,
    verify_adapter,
)


class MergeConfig(StageConfig, frozen=True, kw_only=True):
    """Merge an adapter into its base model. The output is ``model``."""

    adapter: str
    """The adapter to merge: a stage that trained one, or a PEFT folder."""


class Merge(StageDefaults):
    """The stage kind ``merge``."""

    Config = MergeConfig
    VERSION = 1
    determinism = "same-machine"

    @staticmethod
    def ports(config: MergeConfig) -> Ports:
        inputs = {"adapter": Input(("adapter",), config.adapter, ("adapter",))}
        return Ports(inputs, {"model": Output("model", origin="adapter")}, default="model")

    @staticmethod
    def tools(config: MergeConfig) -> tuple[str, ...]:
        return ("peft", "transformers", "torch")

    @staticmethod
    def run(ctx: StageContext[MergeConfig]) -> StageResult:
        """Merge, copy what belongs to the model, verify."""
        adapter = ctx.input("adapter")
        base = _base_of(adapter)
        _refuse_other_tasks(adapter)
        verify_adapter(adapter.path)
        target = ctx.out / "model"
        ctx.progress(0, 3, "loading")
        merge(base.path, adapter.path, target)
        ctx.progress(2, 3, "verifying")
        _copy_files(base.path, adapter.path, target)
        figures = verify_merge(base.path, target)
        return StageResult(
            {"model": target},
            figures,
            f"{figures['changed']} of {figures['tensors']} tensors changed",
        )


def merge(base: Path, adapter: Path, target: Path) -> None:
    """Write the base model with the adapter merged in to ``target``, as safetensors.

    Raises:
        StageError: base and adapter do not fit, or the sum is not finite.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)  # rows added to an embedding are drawn at random before they are loaded
    weight_files(base)
    model = AutoModelForCausalLM.from_pretrained(
        base, dtype="auto", low_cpu_mem_usage=True, use_safetensors=True, local_files_only=True
    )
    rows = _embedding_rows(adapter)
    if rows and rows != model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)
    try:
        tuned: Any = PeftModel.from_pretrained(model, adapter, local_files_only=True)
        merged = tuned.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError) as error:
        raise StageError(
            f"the adapter cannot be merged into {base.name}: {str(error).splitlines()[0]}",
            hint="is this the model that the adapter was trained on?",
        ) from error
    merged.save_pretrained(target)


def verify_merge(base: Path, merged: Path) -> dict[str, Any]:
    """Make sure that merged weights are finite and differ from the base; give the figures.

    Raises:
        StageError: they are not finite, or none differs.
    """
    files = weight_files(merged)
    report = look(files)
    if report.not_finite:
        raise StageError(f"the merged model is not finite in {report.not_finite[0]}")
    changed = differing(weight_files(base), files)
    if not changed:
        raise StageError(
            "merging changed no weight",
            hint="in a 16-bit base a tiny update can round away: train longer or in float32",
        )
    return {"tensors": len(report.shapes), "changed": len(changed)}


def _base_of(adapter: Artifact) -> Artifact:
    if adapter.base is None:
        raise StageError(
            f"{adapter.label} does not say which model it was trained on",
            hint="train it in this spec, or export it together with its base model",
        )
    return adapter.base


def _refuse_other_tasks(adapter: Artifact) -> None:
    try:
        config = json.loads((adapter.path / ADAPTER_CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{adapter.label} is no PEFT folder: {error}") from error
    task = config.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise StageError(f"{adapter.label} is an adapter for {task}; only CAUSAL_LM is merged")


def _embedding_rows(adapter: Path) -> int | None:
    """Give how many tokens the adapter's own embedding has, where it carries a whole one."""
    for name, tensor in tensors([adapter / ADAPTER_WEIGHTS]):
        if name.endswith(("embed_tokens.weight", "lm_head.weight")) and "lora_" not in name:
            return int(tensor.shape[0])
    return None


def _copy_files(base: Path, adapter: Path, target: Path) -> None:
    """Add tokenizer and generation settings; keep of the configuration what training changed."""
    source = adapter if (adapter / "tokenizer_config.json").is_file() else base
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    generation = base / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, target / generation.name)
    else:
        (target / generation.name).unlink(missing_ok=True)
    for file in weight_files(target):
        file.chmod(0o644)  # safetensors writes for the owner alone
    config = json.loads((target / "config.json").read_text("utf-8"))
    config.pop("_name_or_path", None)
    write_json(target / "config.json", config)
