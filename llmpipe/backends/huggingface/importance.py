"""Measure how much each weight column of a model matters: the mean square of what it multiplies.

The model reads calibration texts, and every linear layer sums the squares of its inputs. Quantizing
then rounds columns with large inputs more exactly. Layers that are not `torch.nn.Linear`, such as
fused experts, are not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpipe.backends.huggingface.chat_tokens import token_ids
from llmpipe.backends.huggingface.inference import LoadedModel

LONGEST = 2048
"""The most tokens of a text that are read."""


@dataclass(slots=True)
class Sums:
    """The sums of squares by layer, and what they are over."""

    squares: dict[str, Any] = field(default_factory=dict)
    """By module name: float64, shape (width,)."""
    counts: dict[str, int] = field(default_factory=dict)
    """By module name the number of tokens that it read."""
    texts: int = 0
    tokens: int = 0
    cut: int = 0
    """The number of texts longer than ``longest``."""
    longest: int = LONGEST
    """The most tokens that were read of a text: `LONGEST`, or what the model can read."""


def measure(
    loaded: LoadedModel, texts: Sequence[str], on_done: Callable[[int], None] = lambda n: None
) -> Sums:
    """Have the model read the texts, one at a time, and return the sums of its linear layers."""
    import torch

    context = getattr(loaded.model.config, "max_position_embeddings", None) or LONGEST
    sums = Sums(longest=min(LONGEST, context))
    head = loaded.model.get_output_embeddings()

    def watch(name: str) -> Callable[[Any, tuple[Any, ...]], None]:
        def add(module: Any, args: tuple[Any, ...]) -> None:
            inputs = args[0].detach().flatten(0, -2).double()
            sums.squares[name] = sums.squares.get(name, 0) + inputs.square().sum(0).cpu().numpy()
            sums.counts[name] = sums.counts.get(name, 0) + len(inputs)

        return add

    hooks = [
        module.register_forward_pre_hook(watch(name))
        for name, module in loaded.model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    try:
        for text in texts:
            ids = token_ids(loaded.tokenizer, text)
            read = ids[: sums.longest]
            sums.cut += len(read) < len(ids)
            with torch.inference_mode():
                loaded.model(torch.tensor([read]).to(loaded.device), use_cache=False)
            sums.texts, sums.tokens = sums.texts + 1, sums.tokens + len(read)
            on_done(1)
    finally:
        for hook in hooks:
            hook.remove()
    return sums
