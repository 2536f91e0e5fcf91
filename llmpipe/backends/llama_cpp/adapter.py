"""Write a PEFT adapter as a GGUF that llama.cpp loads on the GGUF of its base model.

llama.cpp adds ``alpha / rank · B·A`` to a matrix, with one alpha for the file. This is LoRA with
any rank and scale per module, rsLoRA included: other scales are multiplied into B. What else an
adapter may hold (DoRA's magnitudes, whole modules, rows of tokens, biases) has no place in the
file and is refused by name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.base_model import ADAPTER_WEIGHTS
from llmpipe.backends.huggingface.lora_features import PREFIX, beyond_lora
from llmpipe.backends.llama_cpp.converter import CHECKOUT, NAME, Converter, child_environment
from llmpipe.errors import StageError

MERGE_INSTEAD = "export the merged model instead: kind: export with the adapter as its model"
_CHILD = Path(__file__).with_name("adapter_child.py")


def refuse_unsupported(adapter: Path, base: Path, label: str) -> None:
    """Require that an adapter is plain LoRA on linear layers of a base model.

    Raises:
        StageError: It holds something that llama.cpp cannot apply.
    """
    reasons = list(beyond_lora(adapter, base, label, "llama.cpp"))
    if reasons:
        raise StageError(
            f"{label} cannot be a GGUF adapter: {'; '.join(reasons)}", hint=MERGE_INSTEAD
        )


def scales_of(tuned: Any) -> dict[str, float]:
    """Return the scale of every adapted layer of a PEFT model, by the layer's name."""
    from peft.tuners.lora import LoraLayer

    return {
        name.removeprefix(PREFIX): float(module.scaling[tuned.active_adapter])
        for name, module in tuned.named_modules()
        if isinstance(module, LoraLayer)
    }


def write_adapter(
    adapter: Path,
    base: Path,
    target: Path,
    scales: Mapping[str, float],
    *,
    converter: Converter,
    work: Path,
    threads: int,
    label: str,
) -> list[str]:
    """Write an adapter to ``target``; return the names of the base's tensors that it changes.

    Args:
        adapter: The PEFT folder; `refuse_unsupported` accepted it.
        base: The folder of the base model.
        target: The file to write.
        scales: The scale of every adapted layer, from `scales_of`.
        converter: llama.cpp's converter.
        work: A folder for what it reads.
        threads: CPU threads.
        label: The adapter's name in messages.

    Raises:
        StageError: The converter does not know the architecture, or changes a layer in a way that
            no adapter can have.
    """
    factors, result = work / "factors.safetensors", work / "adapter.json"
    settings = {
        "base": str(base),
        "factors": str(factors),
        "target": str(target),
        "result": str(result),
        "alpha": _write_factors(adapter, scales, factors),
    }
    result.unlink(missing_ok=True)
    child = subprocess.run(
        [sys.executable, "-P", str(_CHILD)],
        input=json.dumps(settings) + "\n",
        env={**os.environ, **child_environment(converter, threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    factors.unlink()
    try:
        found = json.loads(result.read_text("utf-8"))
    except (OSError, ValueError):
        lines = [line for line in child.stderr.splitlines() if line.strip()]
        reason = (lines or [f"exit status {child.returncode}"])[-1].strip()
        found = {"error": reason}
    if "error" in found:
        target.unlink(missing_ok=True)
        raise StageError(
            f"{label}: {NAME} cannot write it: {found['error']}",
            hint=f"{MERGE_INSTEAD}; or {CHECKOUT}=<llama.cpp checkout> uses a newer converter",
        )
    return list(found["tensors"])


def _write_factors(adapter: Path, scales: Mapping[str, float], target: Path) -> float:
    """Write the factors A and B of every layer in float32; return the alpha of all of them."""
    from safetensors.torch import load_file, save_file

    alpha: float | None = None
    factors = {}
    stored = load_file(adapter / ADAPTER_WEIGHTS)
    for name in sorted(stored):
        if not name.endswith(".lora_A.weight"):
            continue
        place = name.removesuffix(".lora_A.weight")
        module = place.removeprefix(PREFIX)
        a, b = stored[name].float(), stored[f"{place}.lora_B.weight"].float()
        wanted = scales[module] * len(a)
        alpha = wanted if alpha is None else alpha
        factors[f"{module}.a"] = a.contiguous()
        factors[f"{module}.b"] = (b if wanted == alpha else b * (wanted / alpha)).contiguous()
    if alpha is None:
        raise StageError(f"{adapter.name} has no LoRA factors")
    save_file(factors, target)
    return alpha
