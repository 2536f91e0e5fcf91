"""What is said of a finished training whose weights are not those of its best evaluation."""

from __future__ import annotations

from typing import Any

import pytest

from llmpipe.backends.axolotl.ending import Ending
from llmpipe.stages.train_metrics import not_the_best


@pytest.mark.parametrize(
    ("loaded", "settings", "cause"),
    [
        (None, {"metric_for_best_model": "loss"}, "set load_best_model_at_end: true"),
        (None, {"load_best_model_at_end": True}, "no checkpoint was saved at that step"),
        ("checkpoint-8", {"early_stopping_patience": 2}, "no checkpoint was saved at that step"),
        ("checkpoint-6", {"load_best_model_at_end": True}, None),
    ],
)
def test_the_cause_is_the_one_of_this_run(
    loaded: str | None, settings: dict[str, Any], cause: str | None
) -> None:
    """Nothing is advised that the settings already say."""
    ended = Ending(12, 12, [], False, 6, "loss", 1.5, loaded)
    told = not_the_best(ended, settings)
    assert (told is None) == (cause is None)
    if cause and told:
        assert cause in told
        assert "at step 6 was 1.5" in told
        assert "load_best_model_at_end" not in told or not settings.get("load_best_model_at_end")
