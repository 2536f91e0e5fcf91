"""Find what an adapter has beyond plain LoRA, which servers would ignore or refuse.

llama.cpp and vLLM add ``scale · B·A`` to linear layers of the base model while they serve. PEFT
knows more. The adapter's configuration tells of it, but both servers read few of its fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from llmpipe.backends.huggingface.base_model import ADAPTER_WEIGHTS, read_adapter_config
from llmpipe.backends.huggingface.tensors import tensor_shapes, tensors, weight_files

Server = Literal["llama.cpp", "vLLM"]

PREFIX = "base_model.model."
"""What PEFT writes before the names of the base's modules."""

CHANGES_BASE = ("corda", "loftq", "lora_ga", "olora", "pissa")
"""Beginnings of ``init_lora_weights`` with which PEFT changes the base that it trains on."""

FEATURES: Mapping[str, Mapping[Server, str]] = {
    "use_dora": {
        "llama.cpp": "llama.cpp's adapters have no magnitudes",
        "vLLM": "vLLM does not apply DoRA",
    },
    "modules_to_save": {
        "llama.cpp": "llama.cpp's adapters replace no whole module",
        "vLLM": "vLLM replaces no whole module",
    },
    "trainable_token_indices": {
        "llama.cpp": "llama.cpp's adapters replace no rows of the embedding",
        "vLLM": "vLLM replaces no rows of the embedding",
    },
    "bias": {
        "llama.cpp": "llama.cpp's adapters change no bias",
        "vLLM": "vLLM changes no bias",
    },
    "lora_bias": {
        "llama.cpp": "llama.cpp's adapters have no bias",
        "vLLM": "vLLM changes no bias",
    },
    "rank_pattern": {"vLLM": "vLLM takes one rank and scale for all layers"},
    "alpha_pattern": {"vLLM": "vLLM takes one rank and scale for all layers"},
    "target_parameters": {
        "llama.cpp": "parameters of experts have no tensor of their own in a GGUF",
        "vLLM": "vLLM changes linear layers only",
    },
    "alora_invocation_tokens": {
        "llama.cpp": "it is active only after these tokens, which is not covered",
        "vLLM": "vLLM's LoRA is always active",
    },
    "layer_replication": {
        "llama.cpp": "the base has each layer once",
        "vLLM": "the base has each layer once",
    },
}
"""By field of the configuration, the reason for each server that does not apply it."""

_WITHOUT_TENSORS = ("bias", "rank_pattern", "alpha_pattern")
"""Fields of `FEATURES` that bring no tensors, or that are "none" where they bring none."""

_PLAIN = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision"),
        *("peft_type", "task_type", "init_lora_weights"),  # judged by their values
        *("r", "lora_alpha", "lora_dropout", "use_rslora", "fan_in_fan_out"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("corda_config", "eva_config", "loftq_config", "lora_ga_config"),  # for the start only
        *("megatron_config", "megatron_core", "velora_config", "runtime_config"),  # for training
        *("qalora_group_size", "ensure_weight_tying"),  # details of fields that are refused
    }
)
"""Fields that plain LoRA has, or that change nothing in what is saved."""


def beyond_lora(adapter: Path, base: Path, label: str, server: Server) -> Iterator[str]:
    """Yield why a server would not apply an adapter as it was trained.

    Args:
        adapter: The PEFT folder.
        base: The folder of its base model.
        label: The adapter's name in messages.
        server: The server.

    Raises:
        StageError: It is not a PEFT folder.
    """
    config = read_adapter_config(adapter, label)
    kind, task = config.get("peft_type", "LORA"), config.get("task_type")
    if kind != "LORA":
        yield f"it is {kind}, and {server} knows LoRA only"
    if task not in (None, "CAUSAL_LM"):
        yield f"it is for {task}, not for CAUSAL_LM"
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(CHANGES_BASE):
        yield f"init_lora_weights is {start}: PEFT changes the base with it, and {server} does not"
    for key, value in config.items():
        if not value or value == "none" or key in _PLAIN:
            continue
        if key not in FEATURES:
            yield f"{key}: what this field changes is not known here"
        elif server in FEATURES[key]:
            yield f"{key}: {FEATURES[key][server]}"
    yield from _other_tensors(config, adapter / ADAPTER_WEIGHTS, base)


def outside_layers(adapter: Path) -> list[str]:
    """Return the adapted modules that are not in a numbered layer: the head, the embedding."""
    names = (name.removeprefix(PREFIX) for name in tensor_shapes([adapter / ADAPTER_WEIGHTS]))
    modules = {name.partition(".lora_")[0] for name in names if ".lora_" in name}
    return sorted(name for name in modules if not any(map(str.isdecimal, name.split("."))))


def _other_tensors(config: Mapping[str, Any], file: Path, base: Path) -> Iterator[str]:
    """Yield a tensor that is not a factor of a linear layer, beyond what the config announces.

    PEFT also saves the embedding or head below a LoRA on it; it must be the base's own.
    """
    if any(config.get(key) for key in FEATURES if key not in _WITHOUT_TENSORS):
        return  # these have tensors of their own, and are named already
    factors = (".lora_A.weight", ".lora_B.weight")
    others = {name for name in tensor_shapes([file]) if not name.endswith(factors)}
    if not others:
        return
    held = {name: tensor for name, tensor in tensors([file]) if name in others}
    own = {name.removeprefix(PREFIX).replace(".base_layer.", "."): name for name in others}
    for name, tensor in tensors(weight_files(base)):
        saved = held.get(own.get(name, ""))
        if saved is None or saved.shape != tensor.shape:
            continue
        if bool((saved.to(tensor.dtype) == tensor).all()):
            others.discard(own[name])
    for name in sorted(others)[:1]:
        yield f"it holds {name.removeprefix(PREFIX)}, which is not a factor of a linear layer"
