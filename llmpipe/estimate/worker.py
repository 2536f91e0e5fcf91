"""Answer how much memory training steps take; runs as a subprocess with ``-m``.

It imports Axolotl, torch and transformers once, and answers each question in a fork: what a
question changes in these libraries ends with it.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.answering import answer_in_forks

CHUNKED = ("liger_fused_linear_cross_entropy", "cut_cross_entropy")
"""Axolotl's keys of losses that compute logits in chunks, each as large as the hidden states
(Liger-Kernel, ``fused_linear_cross_entropy.py``)."""

PREFERENCE = ("dpo", "ipo", "simpo", "orpo", "kto")
WITH_REFERENCE = ("dpo", "ipo", "kto")

WITHOUT_MASK = ("flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
"""Attention that reads the lengths of rows instead of a mask of all pairs of tokens."""


def main() -> int:
    """Answer questions until they end; see `llmpipe.backends.axolotl.answering`."""
    if not sys.flags.safe_path:
        sys.path.pop(0)  # the working folder
    import llmpipe.estimate.build
    import llmpipe.estimate.step  # noqa: F401

    return answer_in_forks(_answer)


def _answer(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a step holds, or why it cannot be run as ``error``."""
    with tempfile.TemporaryDirectory(prefix="llmpipe-estimate-") as folder:
        try:
            return measure(asked, Path(folder))
        except Exception as error:  # a model of any library: it may fail in any way
            traceback.print_exc()
            words = " ".join(str(error).split()) or type(error).__name__
            return {"error": f"{type(error).__name__}: {words}"[:300]}


def measure(asked: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Run the step that is asked about on fake tensors and return what it holds."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    from llmpipe.estimate import build, step

    cfg, document = settings_of(asked, folder)
    notes = _switch_off(cfg)
    model = build.build(cfg)
    batch = batch_of(cfg, document, model.config.get_text_config())
    with FakeTensorMode(), build.without_values(), build.masked(batch.mask and batch.packed):
        build.materialize(model)
        steps = step.Steps(model, cfg, batch, cuda=asked["cuda"])
        peak = step.peak_of(steps, block=512 if asked["cuda"] else 1)
    return {
        "peak": peak,
        "trainable": sum(p.numel() for p in steps.trainable),
        "sizes": build.sizes(model),
        "notes": notes,
    }


def settings_of(asked: Mapping[str, Any], folder: Path) -> tuple[Any, dict[str, Any]]:
    """Return the settings as Axolotl completes them, and the document they come from."""
    from llmpipe.estimate import build

    _write_config(asked, folder)
    document = {**asked["document"], "base_model": str(folder)}
    if document.get("bf16") == "auto":  # Axolotl would ask the GPU of this machine
        document["bf16"] = bool(asked["capabilities"]["bf16"])
    return build.settings_for(document, asked["capabilities"]), document


def batch_of(cfg: Any, document: Mapping[str, Any], text: Any) -> Any:
    """Return the largest micro-batch that the settings allow."""
    from llmpipe.estimate.step import Batch

    rows, length = int(cfg.micro_batch_size or 1), int(cfg.sequence_len)
    packed = bool(cfg.sample_packing)
    if packed and cfg.attn_supports_packing and not cfg.multipack_real_batches:
        rows, length = 1, rows * length
    trained = None
    if any(document.get(key) for key in CHUNKED):
        trained = max(1, rows * length * int(text.hidden_size) // int(text.vocab_size))
    rl = str(cfg.rl.value if hasattr(cfg.rl, "value") else cfg.rl or "")
    return Batch(
        rows,
        length,
        mask=cfg.attn_implementation not in WITHOUT_MASK,
        packed=packed,
        trained=trained,
        pairs=rl in PREFERENCE or bool(cfg.reward_model),
        reference=rl in WITH_REFERENCE,
    )


def _write_config(asked: Mapping[str, Any], folder: Path) -> None:
    if asked["gguf"] is None:
        (folder / "config.json").write_text(json.dumps(asked["model"]), "utf-8")
        return
    from transformers import AutoConfig

    gguf = Path(asked["gguf"])
    AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def _switch_off(cfg: Any) -> list[str]:
    """Switch off what needs a GPU to be run at all; return a note for each that costs memory."""
    notes = []
    for key in ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel"):
        cfg[key] = False
    for key in ("activation_offloading", "layer_offloading"):
        if cfg[key]:
            notes.append(f"{key} is not counted: training takes less")
    if cfg.torch_compile:
        notes.append("torch_compile is not counted")
    return notes


if __name__ == "__main__":
    sys.exit(main())
