"""Adapters as PEFT makes them, with values that matter, and what the model predicts that has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Made:
    """An adapter's folder and the logits of the very model that it was saved from."""

    folder: Path
    logits: Any


def make_adapter(
    base: Path,
    folder: Path,
    ids: Any,
    *,
    rows: int | None = None,
    loading: dict[str, Any] | None = None,
    **lora: Any,
) -> Made:
    """Put LoRA with random values on a base model, note what it predicts, save it.

    Args:
        base: The base model's folder.
        folder: Where the adapter goes.
        ids: Token ids to predict after, shape (rows, tokens).
        rows: Rows of the embeddings, if tokens are added.
        loading: Arguments of ``from_pretrained`` for the base, such as ``quantization_config``.
        lora: Fields of PEFT's ``LoraConfig``.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    arguments = {"dtype": torch.float32, **(loading or {})}
    model = AutoModelForCausalLM.from_pretrained(base, **arguments)
    if rows:
        model.resize_token_embeddings(rows)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM", **lora})
    tuned = get_peft_model(model, config)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            spread = 0.5 * float(parameter.detach().abs().mean()) + 0.02
            parameter.data += spread * torch.randn_like(parameter)
    # As in a training step: without gradients, bitsandbytes computes in bfloat16 on some CPUs.
    logits = tuned.train()(ids).logits.detach().float()
    tuned.save_pretrained(folder)
    return Made(folder, logits)


def give_tokenizer(adapter: Path, base: Path, **changes: Any) -> None:
    """Put the base's tokenizer beside an adapter, with some of its fields changed."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(adapter)
