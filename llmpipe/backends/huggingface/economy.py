"""Spare a Hugging Face model work whose result is not used, up to rounding with equal results.

`grouped_attention` is for writing token by token with grouped-query attention: transformers copies
the whole cache once for each query head of a group, and here the heads of a group share it.
`chosen_positions` computes logits at the positions that are scored, and not at those around them.
Both leave a model as it is where they do not fit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

SDPA = "sdpa"
_UNGROUPED = SimpleNamespace(num_key_value_groups=1, is_causal=False)


@contextlib.contextmanager
def grouped_attention() -> Iterator[None]:
    """Let query heads share keys and values wherever one token attends to those before it."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    plain = ALL_ATTENTION_FUNCTIONS[SDPA]

    def attend(
        module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *args: Any, **given: Any
    ) -> tuple[Any, None]:
        rows, heads, tokens, width = query.shape
        groups = key.shape[1]
        per_head = attention_mask is not None and attention_mask.shape[1] > 1
        if tokens > 1 or groups == heads or per_head or given.get("position_bias") is not None:
            result: tuple[Any, None] = plain(
                module, query, key, value, attention_mask, *args, **given
            )
            return result
        together = query.view(rows, groups, heads // groups, width)  # as if they were tokens
        given["is_causal"] = False
        found, _ = plain(_UNGROUPED, together, key, value, attention_mask, *args, **given)
        return found.transpose(1, 2).reshape(rows, 1, heads, -1), None

    ALL_ATTENTION_FUNCTIONS[SDPA] = attend
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS[SDPA] = plain


@contextlib.contextmanager
def chosen_positions(model: Any, positions: Any) -> Iterator[None]:
    """Let the output head see only these positions of the flattened batch, as one row.

    This is right for every model whose forward takes ``logits_to_keep``: what comes after its head
    treats each position by itself.
    """

    def select(head: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].flatten(0, 1).index_select(0, positions)[None], *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()
