"""Record how the base of a QLoRA adapter was rounded, and round it in the same way again.

QLoRA trains an adapter on a base model whose linear layers bitsandbytes rounded to 4 bits (with
``load_in_8bit`` to 8). The adapter learns to compensate the rounding, so on the unrounded base it
is a different model. The rounding is therefore part of the adapter. Its folder records it as
`QUANTIZATION_CONFIG`, in the format of Hugging Face's ``BitsAndBytesConfig``.

The rounded weights are stored as ordinary ones (dequantized). For 4 bits this is exactly the
arithmetic of bitsandbytes' layers. For 8 bits, LLM.int8 also rounds activations, which a merged
model cannot do. Other methods (GPTQ, AWQ) are not covered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.errors import MissingDependencyError, StageError

QUANTIZATION_CONFIG = "quantization_config.json"
BITSANDBYTES = "bitsandbytes"

_HINTS = (
    "load_in_4bit: true",
    "load_in_8bit: true",
    "adapter: qlora",
    "quantization config was used during training",
)
"""Lowercase phrases in the model cards of PEFT and Axolotl that hint at a rounded base."""


def quantization_of(adapter: Path) -> dict[str, Any] | None:
    """Return how the base of an adapter was rounded in training, or None.

    This reads `QUANTIZATION_CONFIG`, or the ``config.json`` that Axolotl leaves beside adapters.

    Raises:
        StageError: The record is not JSON, or says neither 4 nor 8 bits.
    """
    own = adapter / QUANTIZATION_CONFIG
    if own.is_file():
        found = _read(own)
        if not (found.get("load_in_4bit") or found.get("load_in_8bit")):
            raise StageError(
                f"{own.name} of the adapter says neither load_in_4bit nor load_in_8bit",
                hint="write it in the format of Hugging Face's BitsAndBytesConfig, or remove it",
            )
        return found
    return recorded_quantization(adapter)


def recorded_quantization(output: Path) -> dict[str, Any] | None:
    """Return how bitsandbytes rounded the base, from the ``config.json`` of a training, or None.

    Raises:
        StageError: The file is not JSON.
    """
    config = output / "config.json"
    found = _read(config).get("quantization_config") if config.is_file() else None
    if not isinstance(found, dict) or found.get("quant_method") != BITSANDBYTES:
        return None
    return {key: found[key] for key in sorted(found) if not key.startswith("_")}


def describe(quantization: Mapping[str, Any] | None) -> str:
    """Return the format of a base for messages and metrics: ``nf4``, ``int8`` or ``unrounded``."""
    if quantization is None:
        return "unrounded"
    if quantization.get("load_in_8bit"):
        return "int8"
    return str(quantization.get("bnb_4bit_quant_type", "fp4"))


def bits_of(quantization: Mapping[str, Any] | None) -> int | None:
    """Return the number of bits that a base was rounded to, 4 or 8, or None."""
    if quantization is None:
        return None
    return 8 if quantization.get("load_in_8bit") else 4


def unrecorded_hint(adapter: Path) -> str | None:
    """Return a hint in an adapter's folder at a rounded base without a record, or None."""
    if quantization_of(adapter) is not None:
        return None
    card = adapter / "README.md"
    if card.is_file():
        text = card.read_text("utf-8", errors="replace").lower()
        found = next((hint for hint in _HINTS if hint in text), None)
        if found:
            return f"its README.md says {found!r}"
    config = adapter / "adapter_config.json"
    base = str(_read(config).get("base_model_name_or_path") or "") if config.is_file() else ""
    if any(sign in base.lower() for sign in ("bnb-4bit", "bnb-8bit")):
        return f"its adapter_config.json names the base {base!r}"
    return None


def require_bitsandbytes() -> None:
    """Require that bitsandbytes is installed, without importing it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    from importlib.util import find_spec

    if find_spec(BITSANDBYTES) is None:
        raise MissingDependencyError(
            "the adapter was trained on a base rounded by bitsandbytes, which is not installed",
            hint='pip install bitsandbytes (it comes with "llmpipe[train]")',
        )


def loading_arguments(quantization: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return the arguments of ``from_pretrained`` that load a base rounded as in training.

    As in Axolotl, the weights are rounded from the format that training computed in. A base folder
    that is already rounded stays unchanged.

    Raises:
        StageError: The quantization is not a valid ``BitsAndBytesConfig``.
    """
    import torch
    from transformers import BitsAndBytesConfig

    require_bitsandbytes()
    arguments: dict[str, Any] = {"device_map": {"": "cpu"}}
    if _read(base / "config.json").get("quantization_config"):
        return arguments
    computed = str(quantization.get("bnb_4bit_compute_dtype") or "float32").removeprefix("torch.")
    dtype = getattr(torch, computed, None)
    if not isinstance(dtype, torch.dtype):
        raise _not_read(f"bnb_4bit_compute_dtype: {computed!r} is not a number format of PyTorch")
    kind = quantization.get("bnb_4bit_quant_type", "fp4")
    if kind not in ("fp4", "nf4"):
        raise _not_read(f"bnb_4bit_quant_type: {kind!r} is neither fp4 nor nf4")
    given = {**quantization, "bnb_4bit_compute_dtype": computed}
    try:
        arguments["quantization_config"] = BitsAndBytesConfig.from_dict(given)
    except (TypeError, ValueError) as error:
        raise _not_read(str(error)) from error
    if quantization.get("load_in_4bit"):
        arguments["dtype"] = dtype
    return arguments


def _not_read(why: str) -> StageError:
    return StageError(
        f"the rounding of the base cannot be read: {why}",
        hint=f"{QUANTIZATION_CONFIG} of the adapter must be a Hugging Face BitsAndBytesConfig",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{path.parent.name}/{path.name} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise StageError(f"{path.parent.name}/{path.name} is not a JSON object")
    return found
