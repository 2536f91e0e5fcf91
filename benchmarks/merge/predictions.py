"""What models predict on held-out chats: the one that was trained, and those merged from it.

The trained one is put together by transformers, bitsandbytes and PEFT alone, and computes as in a
training step: without gradients, bitsandbytes computes in bfloat16 on some CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.merge.cases import Case
from benchmarks.merge.training import SEQUENCE

Ids = list[list[int]]


def held_out_ids(tokenizer_folder: Path, chats: Sequence[dict[str, Any]]) -> Ids:
    """Return each chat as the token ids that a model reads."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    texts = [tokenizer.apply_chat_template(chat["messages"], tokenize=False) for chat in chats]
    ids: Ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return [row[:SEQUENCE] for row in ids]


def of_trained(base: Path, adapter: Path, case: Case, rows: Ids) -> Any:
    """Predict with the adapter on its base, rounded as Axolotl rounded it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    loading: dict[str, Any] = {"dtype": torch.float32}
    if case.quantization:
        config = BitsAndBytesConfig(**case.quantization)
        loading |= {"quantization_config": config, "device_map": {"": "cpu"}}
    model = AutoModelForCausalLM.from_pretrained(base, **loading)
    if case.rows:
        model.resize_token_embeddings(model.config.vocab_size + case.rows, mean_resizing=False)
    model.__dict__.pop("hf_device_map", None)
    tuned = PeftModel.from_pretrained(model, adapter)
    tuned.enable_input_require_grads()
    return _predicted(tuned.train(), rows)


def of_folder(model: Path, rows: Ids) -> Any:
    """Predict with a model folder, in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    return _predicted(loaded.eval(), rows)


def _predicted(model: Any, rows: Ids) -> Any:
    """Return logits of shape (tokens of all rows, vocabulary)."""
    import numpy as np
    import torch

    found = []
    for row in rows:
        logits = model(input_ids=torch.tensor([row]), use_cache=False).logits
        found.append(logits[0].detach().float().numpy())
    return np.concatenate(found)
