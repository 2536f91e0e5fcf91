"""What the preference methods (``rl``) ask of a stage's settings, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from llmpipe.backends.axolotl.config import (
    EXPERIMENTAL,
    GRPO,
    KTO,
    METHODS,
    BlockProblem,
    with_defaults,
)

SUPERVISED_ONLY = (
    "early_stopping_patience",
    "load_best_model_at_end",
    "metric_for_best_model",
    "greater_is_better",
    "loss_watchdog_threshold",
)
"""Keys that Axolotl hands to its trainer of plain rows and drops for preference training."""

_REWARDS = (
    "write the stage's own field rewards: [{file: ./rewards.py, function: NAME}], whose files are "
    "inputs of the stage"
)


def method_problems(block: Mapping[str, Any], *, rewarded: bool | None) -> Iterator[BlockProblem]:
    """Yield what is wrong or remarkable about the settings of ``rl``.

    Args:
        block: Axolotl's vocabulary.
        rewarded: whether the stage has rewards; None for a file that names its own.
    """
    rl = block.get("rl")
    trl = block.get("trl")
    for key in ("reward_funcs", "reward_weights"):
        if rewarded is not None and isinstance(trl, Mapping) and trl.get(key) is not None:
            yield BlockProblem(("trl", key), f"{key} is set by llmpipe", _REWARDS)
    if not rl:
        return
    if rl not in METHODS:
        known = ", ".join(METHODS)
        yield BlockProblem(("rl",), f"{rl} is not supported; supported are {known}")
    if rl in EXPERIMENTAL:
        yield BlockProblem(
            ("rl",),
            f"{rl} uses a trainer of trl.experimental, which any release of TRL may change or drop",
            "keep the versions that you trained with: the lock file names them",
            warning=True,
        )
    if rl == KTO and with_defaults(block).get("micro_batch_size", 1) == 1:
        yield BlockProblem(
            ("micro_batch_size",),
            "kto compares the answers of a micro-batch with each other: it needs at least 2",
            "set micro_batch_size: 2 or more, and lower gradient_accumulation_steps",
        )
    for key in ("kto_desirable_weight", "kto_undesirable_weight"):
        if rl == KTO and block.get(key) == 0:
            yield BlockProblem((key,), "Axolotl takes 0 for 1", "leave such rows out")
    if rl == GRPO and rewarded is not None:
        yield from _grpo_problems(block, rewarded=rewarded)
    if str(block.get("excess_length_strategy")).lower() == "truncate" and rl != GRPO:
        yield BlockProblem(
            ("excess_length_strategy",),
            "an answer that is cut at sequence_len is trained as if it ended there, with an end "
            "token behind the cut",
            "leave long rows out: excess_length_strategy: drop",
            warning=True,
        )
    for key in filter(block.get, SUPERVISED_ONLY):
        message = f"Axolotl ignores {key} if rl is set"
        yield BlockProblem((key,), message, "remove it")


def unbalanced(labels: Mapping[bool, int], block: Mapping[str, Any]) -> str | None:
    """Return why answers labeled good and bad do not count alike in KTO, or None.

    The paper (equation 8) advises a ratio of 1 to 4/3 between the weighted counts of good and bad.
    """
    good, bad = labels.get(True, 0), labels.get(False, 0)
    if not good and not bad:
        return None
    if not good or not bad:
        return f"all answers are labeled {'good' if good else 'bad'}: KTO learns from both"
    desirable = float(block.get("kto_desirable_weight") or 1)
    undesirable = float(block.get("kto_undesirable_weight") or 1)
    ratio = (desirable * good) / (undesirable * bad)
    if 0.99 <= ratio <= 1.34:  # weights are rounded
        return None
    if ratio > 1:
        advice = f"kto_undesirable_weight: {undesirable * ratio:.2f}"
    else:
        advice = f"kto_desirable_weight: {desirable / ratio:.2f}"
    return (
        f"{good} good and {bad} bad answers do not count alike (their weighted ratio is "
        f"{ratio:.2f}, KTO's authors advise 1 to 1.33): set {advice}"
    )


def _grpo_problems(block: Mapping[str, Any], *, rewarded: bool) -> Iterator[BlockProblem]:
    if not rewarded:
        yield BlockProblem(("rl",), "grpo needs a reward for its answers", _REWARDS)
    settings = with_defaults(block)
    trl = settings["trl"]
    if not isinstance(trl, Mapping):
        yield BlockProblem(("trl",), "trl must be a mapping", "write trl: {num_generations: 8}")
        return
    batch = trl.get("generation_batch_size")
    named = "trl.generation_batch_size"
    if batch is None:
        one = settings.get("micro_batch_size", 1)  # 1 is Axolotl's own default
        many = settings.get("gradient_accumulation_steps", 1)
        if not (isinstance(one, int) and isinstance(many, int)):
            return  # Axolotl says what is wrong with them
        batch, named = one * many, "micro_batch_size × gradient_accumulation_steps"
    answers = trl["num_generations"]
    if isinstance(answers, int) and answers < 2:
        yield BlockProblem(
            ("trl", "num_generations"),
            "grpo compares the answers to one prompt with each other: it needs at least 2",
            "set trl.num_generations: 2 or more",
        )
    elif isinstance(answers, int) and isinstance(batch, int) and batch % answers:
        yield BlockProblem(
            ("trl",) if block.get("trl") else ("rl",),
            f"trl.num_generations is {answers}, which does not divide the batch of {batch} "
            f"({named})",
            f"set micro_batch_size: {answers}, or another num_generations",
        )
