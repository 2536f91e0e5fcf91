"""What to change in a training that does not fit: the micro-batch first, then more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmpipe.estimate.bounds import LEAST, least_of, method_of
from llmpipe.estimate.memory import SEQUENCE_LEN, Memory

Measure = Callable[[Mapping[str, Any]], Memory | None]
"""Returns the memory of a document, or None where that is not known."""

SHORTEST = 256
"""Tokens below which a shorter sequence is not offered."""


TRIES = 12
"""How often a guess of the largest micro-batch is made smaller."""


def largest_micro_batch(document: Mapping[str, Any], measure: Measure, limit: int) -> int | None:
    """Return the largest micro-batch that fits; 0 if none does, None if that is not known.

    What a step holds grows in proportion to the micro-batch; two measurements give the line, and
    a third one checks the answer. Where one row cannot be trained on (GRPO compares several),
    multiples of the document's micro-batch are tried.
    """
    now = int(document.get("micro_batch_size") or 1)
    unit, other = 1, 1 if now > 1 else 2
    at_now, at_other = measure(document), measure(_with_rows(document, other))
    if at_other is None:
        unit, other = now, 2 * now
        at_other = measure(_with_rows(document, other))
    if at_now is None or at_other is None:
        return None
    slope = (at_now.total - at_other.total) / (now - other)
    if slope <= 0:
        return now if at_now.total <= limit else 0
    guess = (int((limit - at_now.total) // slope) + now) // unit * unit
    for _ in range(TRIES):
        if guess <= 0:
            return 0
        found = measure(_with_rows(document, guess))
        if found is None:
            return None
        if found.total <= limit:
            return guess
        guess = (guess - max(1, guess // 16)) // unit * unit
    return None


def changes_that_fit(
    document: Mapping[str, Any], measure: Measure, limit: int, parameters: int
) -> Iterator[str]:
    """Yield ways to make a training fit; the first that keeps its method, then cheaper methods."""
    start = method_of(document)
    order = ["full", "lora", "qlora"]
    rewards = bool(document.get("reward_model"))  # its adapters are not merged
    for kind in [start] if rewards else order[order.index(start) :]:
        least = least_of(document) if kind == start else LEAST[kind]
        if least * parameters > limit:
            continue
        changed = dict(document)
        words = []
        for change in _steps(document, kind):
            changed.update(change)
            words += [f"{key}: {_shown(value)}" for key, value in change.items()]
            found = measure(changed)
            if found is not None and found.total <= limit:
                yield f"{', '.join(words)}: {found.total / 1e9:.1f} GB"
                break


def gist(parameters: int, limit: int) -> str:
    """Describe how large a model could be trained at all, where nothing fits."""
    need = LEAST["qlora"] * parameters
    most = limit / LEAST["qlora"] / 1.3 / 1e9
    return (
        f"this model has {parameters / 1e9:.1f} billion parameters; even in 4 bits its weights "
        f"take {need / 1e9:.1f} GB. QLoRA fits for models up to about {most:.0f} billion "
        "parameters here"
    )


def _steps(document: Mapping[str, Any], kind: str) -> Iterator[dict[str, Any]]:
    """Yield changes to be made one after another, those that cost least first."""
    rows = int(document.get("micro_batch_size") or 1)
    collected = int(document.get("gradient_accumulation_steps") or 1)
    method: dict[str, Any] = {}
    if kind != method_of(document):
        method = {"adapter": kind, **({"load_in_4bit": True} if kind == "qlora" else {})}
        method |= {"lora_r": 16, "lora_alpha": 32, "lora_target_linear": True}
        if document.get("adapter"):
            method = {key: method[key] for key in ("adapter", "load_in_4bit")}
    smaller = {"micro_batch_size": 1, "gradient_accumulation_steps": rows * collected}
    saving: dict[str, Any] = {"gradient_checkpointing": True}
    if method:
        yield method
    if not document.get("gradient_checkpointing"):
        yield saving
    if rows > 1:
        yield smaller
    if kind == "full" and document.get("optimizer") == "adamw_torch":
        yield {"optimizer": "adamw_torch_fused"}  # the other makes a copy of the weights' size
    if kind == "full" and "8bit" not in str(document.get("optimizer")):
        yield {"optimizer": "adamw_bnb_8bit"}
    length = int(document.get("sequence_len") or SEQUENCE_LEN) // 2
    while length >= SHORTEST:
        yield {"sequence_len": length}
        length //= 2


def _with_rows(document: Mapping[str, Any], rows: int) -> dict[str, Any]:
    return {**document, "micro_batch_size": rows}


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
