"""The metrics of a finished training, and their summary as text.

A step's training loss is measured on one batch and is noisy, so the first and last loss are means
over fifths of the run (`llmpipe.trend`). An evaluation's loss is over all rows of ``eval_data``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.backends.axolotl.ending import Ending, Labels
from llmpipe.trend import WINDOW, trend

COUNTED = ("rows", "tokens", "trained_tokens")
"""The counts of labels that become metrics."""


def metrics(ended: Ending, labels: Labels) -> dict[str, Any]:
    """Return a training's metrics; curves are lists of [step, loss].

    Args:
        ended: how the training ended.
        labels: what was counted in its labels.
    """
    found: dict[str, Any] = {"steps": ended.step}
    found |= {name: count for name in COUNTED if (count := getattr(labels, name))}
    if ended.stopped_early:
        found["planned_steps"] = ended.planned
    if loss := ended.curve("loss"):
        found["loss"] = [list(point) for point in loss]
        found["loss_last_fifth"] = trend([value for _, value in loss])[1]
    if reward := ended.curve("reward"):
        found["reward"] = [list(point) for point in reward]
        found["reward_last_fifth"] = trend([value for _, value in reward])[1]
    if eval_loss := ended.curve("eval_loss"):
        found["eval_loss"] = [list(point) for point in eval_loss]
        found["eval_loss_last"] = eval_loss[-1][1]
    if ended.best_step is not None:
        found["best_step"] = ended.best_step
        found[f"best_{_metric(ended)}"] = ended.best_value
        found["kept_step"] = ended.kept_step
    return found


def summary(ended: Ending) -> str:
    """Summarize how far training went, its losses, and which step's weights were kept."""
    early = f" of {ended.planned}, stopped early" if ended.stopped_early else ""
    words = [f"{ended.step} steps{early}"]
    for name in ("reward", "loss"):
        if curve := ended.curve(name):
            first, last = trend([value for _, value in curve])
            words.append(f"{name} {first:.2f} → {last:.2f} ({WINDOW})")
            break  # the loss of a training by rewards says nothing
    if eval_loss := ended.curve("eval_loss"):
        words.append(f"last eval_loss {eval_loss[-1][1]:.4g}")
    if ended.best_step is not None:
        words.append(f"kept step {ended.kept_step}; {_best(ended)}")
    return ", ".join(words)


def unlearned(ended: Ending) -> str | None:
    """Explain that rewards taught nothing, or next to nothing; None if they taught something."""
    alike = [share for _, share in ended.curve("frac_reward_zero_std")]
    idle = sum(share == 1 for share in alike)
    if not idle:
        return None
    return (
        f"in {idle} of {len(alike)} logged steps all answers to a prompt got the same reward, so "
        "that nothing was learned: a reward must tell answers apart"
    )


def not_the_best(ended: Ending, settings: Mapping[str, Any]) -> str | None:
    """Explain why the kept weights are not those of the best evaluation; None if they are."""
    if ended.best_step in (None, ended.kept_step):
        return None
    if settings.get("load_best_model_at_end") or settings.get("early_stopping_patience"):
        cause = "no checkpoint was saved at that step: set save_steps to the value of eval_steps"
    else:
        cause = "the last weights were to be kept: for the best, set load_best_model_at_end: true"
    return f"the weights kept are those of step {ended.kept_step}; {_best(ended)}, and {cause}"


def _best(ended: Ending) -> str:
    at = "" if ended.best_step == ended.kept_step else f" at step {ended.best_step}"
    return f"the best {_metric(ended)}{at} was {ended.best_value:.4g}"


def _metric(ended: Ending) -> str:
    name = ended.best_metric or "loss"
    return name if name.startswith("eval_") else f"eval_{name}"
