"""Verify the result of a training, and publish the part that later stages use.

A successful exit proves nothing: tensors must exist, be finite, and differ from those before
training. Published files hold no path, date or pickle. The tokenizer's files are those of the base
model, byte for byte, unless the training changed them, because loading and saving a tokenizer may
change it (its class may rebuild its pre-tokenizer).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.base_model import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from llmpipe.backends.huggingface.quantization import QUANTIZATION_CONFIG, recorded_quantization
from llmpipe.backends.huggingface.tensors import INDEX, look, tensors, weight_files
from llmpipe.contracts import write_json
from llmpipe.errors import StageError

TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)

TOKENIZER_KEYS = (
    "added_tokens_overrides",
    "chat_template",
    "chat_template_jinja",
    "default_system_message",
    "special_tokens",
    "tokenizer_config",
    "tokens",
)
"""Axolotl's keys that change a tokenizer or its chat template."""


def publish(output: Path, base: Path, target: Path, settings: Mapping[str, Any]) -> None:
    """Verify the training's result in ``output`` and copy the useful part to ``target``.

    Raises:
        StageError: The result is missing, broken, or equal to the base model.
    """
    target.mkdir(parents=True)
    if settings.get("adapter"):
        verify_adapter(output)
        shutil.copyfile(output / ADAPTER_WEIGHTS, target / ADAPTER_WEIGHTS)
        write_json(target / ADAPTER_CONFIG, neutral_adapter_config(output))
        if rounded := recorded_quantization(output):
            write_json(target / QUANTIZATION_CONFIG, rounded)
    else:
        verify_model(output, base)
        _copy_model(output, base, target)
    copy_tokenizer(output, base, target, changed=any(map(settings.get, TOKENIZER_KEYS)))


def verify_kept(output: Path, checkpoint: Path) -> str | None:
    """Check that the training's weights are those of the checkpoint that it loaded.

    Returns:
        Why they could not be compared: files with other names, or a checkpoint without safetensors
        (DeepSpeed and FSDP keep theirs in shards). None if they are equal.

    Raises:
        StageError: They differ, or the checkpoint is gone.
    """
    if not checkpoint.is_dir():
        raise StageError(
            f"training says that it kept the weights of {checkpoint.name}, which is gone",
            hint="set load_best_model_at_end: false to keep the last step's",
        )
    names = sorted(file.name for file in checkpoint.glob("*.safetensors"))
    lost = [name for name in names if not (output / name).is_file()]
    if lost or not names:
        why = f"training did not write {lost[0]}" if lost else "it has no safetensors"
        return f"the weights kept are not compared with those of {checkpoint.name}: {why}"
    changed = differing(
        [checkpoint / name for name in names], [output / name for name in names], first_only=True
    )
    if changed:
        raise StageError(
            f"training did not keep the best weights, those of {checkpoint.name}: "
            f"{changed[0]} differs",
            hint="set load_best_model_at_end: false to keep the last step's",
        )
    return None


def verify_adapter(folder: Path) -> None:
    """Check that a PEFT folder holds an adapter that learned something.

    Raises:
        StageError: it does not.
    """
    if not (folder / ADAPTER_WEIGHTS).is_file() or not (folder / ADAPTER_CONFIG).is_file():
        raise StageError(f"training did not write {ADAPTER_WEIGHTS}")
    report = look([folder / ADAPTER_WEIGHTS])
    empty = [name for name, shape in report.shapes.items() if 0 in shape]
    if not report.shapes or empty:
        raise StageError(
            "the adapter that training saved is empty",
            hint="with DeepSpeed ZeRO-3 set stage3_gather_16bit_weights_on_model_save: true",
        )
    if report.not_finite:
        raise StageError(
            f"the adapter holds numbers that are not finite ({report.not_finite[0]})",
            hint="lower learning_rate, or set max_grad_norm: 1.0",
        )
    learned = [name for name in report.shapes if "lora_B" in name]
    if learned and set(learned) <= set(report.zero):
        raise StageError(
            "the adapter learned nothing: every lora_B is zero",
            hint="is learning_rate above 0, and do the rows hold answers to learn from?",
        )


def verify_model(folder: Path, base: Path) -> None:
    """Check that a model folder holds finite weights that differ from its base's.

    Raises:
        StageError: it does not.
    """
    report = look(weight_files(folder))
    if report.not_finite:
        raise StageError(
            f"the model holds numbers that are not finite ({report.not_finite[0]})",
            hint="lower learning_rate, or set max_grad_norm: 1.0",
        )
    if not differing(weight_files(base), weight_files(folder), first_only=True):
        raise StageError("training changed no weight", hint="is learning_rate above 0?")


def differing(before: list[Path], after: list[Path], *, first_only: bool = False) -> list[str]:
    """List the tensors in both sets of files whose values differ."""
    from safetensors import safe_open

    where: dict[str, Path] = {}
    for file in before:
        with safe_open(file, framework="pt") as opened:
            where |= dict.fromkeys(opened.keys(), file)
    changed = []
    for name, tensor in tensors(after):
        if name not in where:
            continue
        with safe_open(where[name], framework="pt") as opened:
            old = opened.get_tensor(name)
        if old.shape != tensor.shape or bool((old.to(tensor.dtype) != tensor).any()):
            changed.append(name)
            if first_only:
                break
    return changed


def neutral_adapter_config(folder: Path) -> dict[str, Any]:
    """Return an adapter's configuration without what differs between machines.

    ``base_model_name_or_path`` becomes null: the loader names the base model. PEFT keeps target
    modules in arbitrary order; they are sorted.
    """
    config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text("utf-8"))
    config["base_model_name_or_path"] = None
    return {
        key: sorted(value) if key in _UNORDERED and isinstance(value, list) else value
        for key, value in config.items()
    }


_UNORDERED = ("exclude_modules", "modules_to_save", "target_modules")


def copy_tokenizer(output: Path, base: Path, target: Path, *, changed: bool) -> None:
    """Copy the tokenizer's files: the base's, or those that training saved if it changed them."""
    source = output if changed else base
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    if changed and _same_tokens(output / "tokenizer.json", base / "tokenizer.json"):
        shutil.copyfile(base / "tokenizer.json", target / "tokenizer.json")


def _same_tokens(one: Path, other: Path) -> bool:
    """Return whether two tokenizers have the same vocabulary and added tokens."""
    if not (one.is_file() and other.is_file()):
        return False
    a, b = (json.loads(path.read_text("utf-8")) for path in (one, other))
    return bool(a["model"].get("vocab") == b["model"].get("vocab")) and bool(
        a.get("added_tokens") == b.get("added_tokens")
    )


def _copy_model(output: Path, base: Path, target: Path) -> None:
    for file in weight_files(output):
        shutil.copyfile(file, target / file.name)
    if (output / INDEX).is_file():
        index = json.loads((output / INDEX).read_text("utf-8"))
        write_json(target / INDEX, index)
    config = json.loads((output / "config.json").read_text("utf-8"))
    before = json.loads((base / "config.json").read_text("utf-8"))
    config.pop("_name_or_path", None)
    if "use_cache" in before:  # training switches it off; generation needs it
        config["use_cache"] = before["use_cache"]
    write_json(target / "config.json", config)
    if (base / "generation_config.json").is_file():
        shutil.copyfile(base / "generation_config.json", target / "generation_config.json")
