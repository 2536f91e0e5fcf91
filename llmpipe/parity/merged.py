"""Verify that a merged model equals the trained one, by their predictions per token.

Both sides read the same rows of token ids in float32: golden chats and texts, and a row with the
tokens whose embeddings the adapter changed most, including tokens that it added. The limit
separates a wrong merge from rounding (see `LIMITS`). It is also at most half of what the adapter
changes, so that a merge that loses an adapter with a small effect is detected.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.adapter_merge import float32_blocks, hold_edges_in_float32
from llmpipe.backends.huggingface.chat_tokens import render_chat, token_ids
from llmpipe.errors import StageError
from llmpipe.parity.divergence import Divergence, divergence
from llmpipe.parity.golden import TEXTS, golden_chats

ROW_TOKENS = 48
"""Longer rows are cut to this length: a wrong merge shows in any row."""
HELD_OUT_TOKENS = 96
"""The same for held-out rows, whose answers should be in what remains."""
GOLDEN_CHATS = ("one turn", "system", "several turns")
GOLDEN_TEXTS = TEXTS[:5] + TEXTS[8:10]

LIMITS = {"float32": 1e-5, "float16": 5e-4, "bfloat16": 5e-3}
"""The largest mean KL divergence that rounding explains, in nats per token, by the number format of
the merged weights.

Measured on SmolLM2-135M: 1e-13 in float32, 3e-6 in float16, 2e-4 to 3e-4 in bfloat16. The mildest
wrong merge that was measured, with embeddings and head also rounded to 4 bits, has 0.047.
"""


def comparison_rows(tokenizer: Any | None, changed: Sequence[int] = ()) -> list[list[int]]:
    """Return the rows of token ids that both sides read.

    Args:
        tokenizer: The adapter's tokenizer; None for only the ``changed`` ids.
        changed: Token ids that must be among the rows.
    """
    rows = [list(changed)]
    if tokenizer is not None:
        rows += [token_ids(tokenizer, text) for text in GOLDEN_TEXTS]
        rows += [token_ids(tokenizer, text) for text in _chats(tokenizer)]
    return [row[:ROW_TOKENS] for row in rows if row]


def held_out_rows(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the rows of token ids of held-out texts, each cut to `HELD_OUT_TOKENS`."""
    rows = (token_ids(tokenizer, text)[:HELD_OUT_TOKENS] for text in texts)
    return [row for row in rows if row]


def changed_tokens(tuned: Any) -> list[int]:
    """Return the tokens whose embeddings an adapter changes most, most changed first.

    If it changes none, the tokens are spread evenly over the vocabulary.
    """
    import torch

    embedding = tuned.get_input_embeddings()
    distances = []
    with torch.inference_mode():
        for ids in torch.arange(embedding.weight.shape[0]).split(8192):  # not all at once
            with tuned.disable_adapter():
                before = embedding(ids).float()
            distances.append((embedding(ids).float() - before).norm(dim=-1))
    moved = torch.cat(distances)
    if not bool(moved.any()):
        return list(range(0, len(moved), -(-len(moved) // ROW_TOKENS)))
    order: list[int] = moved.argsort(descending=True, stable=True)[:ROW_TOKENS].tolist()
    return order


def predictions(model: Any, rows: Sequence[Sequence[int]]) -> Any:
    """Return a model's logits for every token of the rows, in float32.

    Afterwards, the model's embeddings and head stay in float32; its blocks are as before.
    Returns:
        An array of shape (tokens of all rows, vocabulary).
    """
    import torch

    width = max(map(len, rows))
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros_like(ids)  # padded on the right, which a causal model does not see
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    hold_edges_in_float32(model)
    model.eval()
    with torch.inference_mode(), float32_blocks(model):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[mask.bool()].float().numpy()


def folder_predictions(model: Path, rows: Sequence[Sequence[int]]) -> tuple[Any, str]:
    """Load a merged folder as a user would; return its predictions and number format."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(
        str(model), dtype="auto", use_safetensors=True, local_files_only=True
    )
    dtype = str(loaded.dtype).removeprefix("torch.")
    try:
        return predictions(loaded, rows), dtype
    finally:
        loaded.to(torch.device("meta"))


def learned_kl(tuned: Any, trained: Any, rows: Sequence[Sequence[int]]) -> float:
    """Return how far an adapter moves its base's predictions: mean KL divergence, nats per token.

    Args:
        tuned: The base with the adapter on it, a PEFT model.
        trained: Its `predictions` for the rows.
        rows: Rows of token ids.
    """
    with tuned.disable_adapter():
        return divergence(trained, predictions(tuned, rows)).mean_kl


def verify_same(trained: Any, merged: Any, dtype: str, label: str, *, learned: float) -> Divergence:
    """Check that the predictions of two models differ by no more than the rounding of weights.

    The difference must also be at most half of what the adapter changed; otherwise the merged model
    is closer to the base.
    Args:
        trained: `predictions` of the adapter on its base.
        merged: `predictions` of the merged folder.
        dtype: The number format of the merged weights, such as ``bfloat16``.
        label: What messages call the merged model.
        learned: `learned_kl` of the adapter.

    Raises:
        StageError: they differ by more than one of the limits, or are not finite.
    """
    if trained.shape != merged.shape:
        raise StageError(
            f"{label} is not the model that was trained: "
            f"{merged.shape[1]} tokens in its vocabulary, {trained.shape[1]} in training"
        )
    found = divergence(trained, merged)
    limit = LIMITS.get(dtype, LIMITS["bfloat16"])
    if not found.mean_kl <= limit:  # NaN must fail, too
        raise StageError(
            f"{label} is not the model that was trained: over {found.tokens} tokens its "
            f"predictions differ by {found.mean_kl:.2g} nats per token, {found.max_kl:.2g} at "
            f"most; rounding to {dtype} explains {limit:g}",
            hint="use base and adapter unmerged, and report this: it is a bug in llmpipe's merge",
        )
    if not found.mean_kl <= learned / 2:
        raise StageError(
            f"{label} has lost what the adapter learned: the adapter moves predictions by "
            f"{learned:.2g} nats per token, and the merged model differs from it by "
            f"{found.mean_kl:.2g}; the adapter's change is smaller than the rounding of the "
            f"base's number format ({dtype}) may be",
            hint="train more or at a higher learning rate, train on a float32 base, or use base "
            "and adapter unmerged",
        )
    return found


def _chats(tokenizer: Any) -> Iterator[str]:
    if not getattr(tokenizer, "chat_template", None):
        return
    for chat in golden_chats():
        if chat.name in GOLDEN_CHATS:
            try:
                yield render_chat(tokenizer, chat.messages, answer_next=True)
            except StageError:  # a template may not support system turns
                continue
