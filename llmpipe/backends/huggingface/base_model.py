"""Load a base model and apply an adapter, so that they compute the same as in training.

Missing weights are errors and never replaced by random values: weights that a folder lacks, adapter
tensors without a place in the model, and rows of new tokens that an adapter lacks.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.quantization import loading_arguments, recorded_quantization
from llmpipe.backends.huggingface.tensors import tensor_shapes, tensors, weight_files
from llmpipe.errors import StageError

ADAPTER_CONFIG = "adapter_config.json"

REWARD_ADAPTER = (
    "adapters of reward models are not merged: train the reward model without an adapter"
)
"""Why an adapter is refused where a reward model is needed."""
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_REWARD_KIND = "ForSequenceClassification"


def read_adapter_config(adapter: Path, label: str) -> dict[str, Any]:
    """Return the configuration of an adapter.

    Raises:
        StageError: The folder has none, or it cannot be read.
    """
    try:
        found = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{label} is not a PEFT folder: {error}") from None
    if not isinstance(found, dict):
        raise StageError(f"{label} is not a PEFT folder: {ADAPTER_CONFIG} is not a JSON object")
    return found


def require_reward_model(folder: Path, label: str) -> None:
    """Require weights with a head of one number: transformers would draw another at random.

    Raises:
        StageError: It is another model, or its configuration cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{label}: its config.json cannot be read: {error}") from None
    config = config if isinstance(config, Mapping) else {}
    kinds = [str(kind) for kind in config.get("architectures") or []]
    named = config.get("id2label")
    labels = len(named) if named else config.get("num_labels", 2)  # 2 is transformers' default
    if not any(kind.endswith(_REWARD_KIND) for kind in kinds) or labels != 1:
        raise StageError(
            f"{label} is not a reward model: it is {', '.join(kinds) or 'of unknown kind'} with "
            f"{labels} labels",
            hint="train one with reward_model: true, and without an adapter",
        )


def load_base(
    model: Path,
    dtype: Any,
    label: str,
    *,
    quantization: Mapping[str, Any] | None = None,
) -> Any:
    """Load a model folder on the CPU, with linear layers rounded if they were in training.

    Args:
        model: The folder; only safetensors are read, and no code of the folder runs.
        dtype: The number format of the weights, or "auto" for the folder's own. Rounded layers have
            the format that they were computed in.
        label: The model's name in messages.
        quantization: How the base was rounded in training (`quantization_of`).

    Raises:
        StageError: The folder is not a causal language model, or lacks weights.
        MissingDependencyError: bitsandbytes is needed and not installed.
    """
    rounded = quantization or recorded_quantization(model)
    arguments: dict[str, Any] = {"dtype": dtype}
    if rounded:
        arguments |= loading_arguments(rounded, model)
    loaded, info = _from_pretrained(model, label, arguments)
    missing = sorted(info["missing_keys"])
    if missing:  # transformers would use random values for them
        raise StageError(f"{label}: weights are missing ({len(missing)}: {missing[0]} …)")
    if rounded:
        loaded = _dequantized(loaded)
        if dtype != "auto":
            loaded = loaded.to(dtype)
    return loaded


def put_adapter(model: Any, base: Path, adapter: Path, label: str) -> Any:
    """Apply a PEFT adapter to a loaded base model as in training, keeping weights tied.

    Args:
        model: The base model from `load_base`.
        base: The folder of the base model.
        adapter: The adapter's folder.
        label: The name of the two in messages.

    Raises:
        StageError: They do not fit, or the adapter lacks rows for tokens that it adds.
    """
    from peft import PeftModel

    _refuse_random_start(adapter, label)
    _resize(model, base, adapter, label)
    fault = ""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            tuned = PeftModel.from_pretrained(model, str(adapter), local_files_only=True)
        spoken = (str(warning.message) for warning in told)
        fault = next((text for text in spoken if "missing adapter keys" in text), "")
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        fault = (str(error).splitlines() or [type(error).__name__])[0]
    fault = _lacking_module(adapter) or fault
    if fault:
        raise StageError(
            f"{label}: the adapter does not fit: {fault[:200]}",
            hint="is this the model that the adapter was trained on?",
        ) from None
    return tuned


def _refuse_random_start(adapter: Path, label: str) -> None:
    """Refuse an adapter whose base was changed before training in a way that cannot be repeated.

    PiSSA subtracts from the base what its adapter starts with. ``pissa_niter_N`` finds that by a
    randomized decomposition. LoRA-GA subtracts what it found by gradients of its training's rows.
    PEFT loads such an adapter on another base without a word.
    """
    started = _read(adapter / ADAPTER_CONFIG).get("init_lora_weights")
    if not isinstance(started, str):
        return
    if started.startswith("pissa_niter"):
        raise StageError(
            f"{label}: the adapter was trained with {started}, a random change of its base that is "
            "not recorded: on this base it is another model",
            hint="train with peft_init_lora_weights: pissa, which can be repeated; or convert the "
            "adapter with PEFT's path_initial_model_for_weight_conversion",
        )
    if started == "lora_ga":
        raise StageError(
            f"{label}: the adapter was trained with lora_ga, a change of its base by gradients "
            "that are not recorded: on this base it is another model",
            hint="convert the adapter with PEFT's path_initial_model_for_weight_conversion",
        )


def _dequantized(model: Any) -> Any:
    """Convert layers of bitsandbytes to ordinary ones with the same weights, before any is used.

    On a CPU with AVX512-BF16 their first forward pass repacks the weights, and dequantizing after
    it gives noise (bitsandbytes 0.50). Settings of transformers and PEFT that only apply to rounded
    models are removed.
    """
    model = model.dequantize()
    model.__dict__.pop("hf_device_map", None)  # PEFT would spread the model over devices
    model._weight_conversions = [
        conversion
        for conversion in getattr(model, "_weight_conversions", None) or []
        if not any(type(op).__name__.startswith("Bnb") for op in _operations(conversion))
    ]
    return model


def _operations(conversion: Any) -> list[Any]:
    return list(getattr(conversion, "operations", None) or [])


def stored_dtype(model: Path) -> Any:
    """Return the number format of a model folder, from its config.json or its weights.

    For a folder that bitsandbytes rounded, this is the format that its layers compute in.
    """
    import torch

    config = _read(model / "config.json")
    named = config.get("dtype") or config.get("torch_dtype")
    if named:
        return getattr(torch, str(named).removeprefix("torch."))
    return next(
        tensor.dtype for _, tensor in tensors(weight_files(model)) if tensor.is_floating_point()
    )


def _resize(model: Any, base: Path, adapter: Path, label: str) -> None:
    """Resize the embeddings to the number of rows in the adapter, which contains the new rows.

    Raises:
        StageError: The adapter's tokenizer has tokens without a row in either of the two.
    """
    rows = _embedding_rows(model, adapter)
    present = model.get_input_embeddings().num_embeddings
    if rows is None:
        tokens, before = _token_count(adapter), _token_count(base)
        if tokens > max(present, before):
            raise StageError(
                f"{label}: the adapter adds {tokens - before} tokens and has no rows for them",
                hint="train it with modules_to_save: [embed_tokens, lm_head]",
            )
    elif rows != present:
        model.resize_token_embeddings(rows, mean_resizing=False)


def _embedding_rows(model: Any, adapter: Path) -> int | None:
    """Return the number of rows in the adapter's embedding or head, or None if it has neither."""
    ends = tuple(
        f"{name}{part}"
        for name, module in model.named_modules()
        if module is model.get_input_embeddings() or module is model.get_output_embeddings()
        for part in (".weight", ".base_layer.weight")
    )
    for name, shape in _shapes(adapter).items():
        if name.endswith(ends):
            return shape[0]
    return None


def _lacking_module(adapter: Path) -> str:
    """Return an error about a full module that the adapter lacks, or ''.

    PEFT would silently keep the base's weights.
    """
    wanted = _read(adapter / ADAPTER_CONFIG).get("modules_to_save") or []
    held = _shapes(adapter)
    lacking = [name for name in wanted if not any(f"{name}." in key for key in held)]
    return f"it has no weights of {lacking[0]}" if lacking else ""


def _shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    return tensor_shapes([adapter / ADAPTER_WEIGHTS])


def _token_count(folder: Path) -> int:
    """Return the number of tokens of the folder's tokenizer, or 0 without one."""
    from transformers import AutoTokenizer

    if not (folder / "tokenizer_config.json").is_file():
        return 0
    return len(AutoTokenizer.from_pretrained(str(folder), local_files_only=True))


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def _from_pretrained(model: Path, label: str, arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        loaded, info = AutoModelForCausalLM.from_pretrained(
            str(model),
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **arguments,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StageError(
            f"{label}: cannot be loaded as a causal language model: {line}",
            hint="the folder needs config.json and safetensors weights",
        ) from None
    return loaded, info
