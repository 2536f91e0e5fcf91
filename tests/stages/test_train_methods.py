"""What preference methods say of their settings and rows."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.stages.train_methods import method_problems, unbalanced


@pytest.mark.parametrize(
    ("good", "bad", "block", "told"),
    [
        (0, 0, {}, None),
        (5, 5, {}, None),
        (4, 3, {}, None),
        (5, 0, {}, "all answers are labeled good"),
        (0, 5, {}, "all answers are labeled bad"),
        (20, 5, {}, "kto_undesirable_weight: 4.00"),
        (20, 5, {"kto_desirable_weight": 0.25}, None),
        (5, 20, {}, "kto_desirable_weight: 4.00"),
        (5, 20, {"kto_undesirable_weight": 0.5}, "kto_desirable_weight: 2.00"),
    ],
)
def test_labels_that_do_not_count_alike(
    good: int, bad: int, block: dict[str, Any], told: str | None
) -> None:
    """TRL says it in a log."""
    found = unbalanced({True: good, False: bad}, block)
    assert (found is None) == (told is None)
    assert told is None or told in (found or "")


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_the_advice_settles_it(good: int, bad: int) -> None:
    """With the weight that is advised, nothing more is said, unless it rounds to nothing."""
    labels = {True: good, False: bad}
    found = unbalanced(labels, {})
    advice = re.search(r"set (kto_\w+): ([\d.]+)$", found or "")
    assert (found is None) == (advice is None)
    if advice:
        assert unbalanced(labels, {advice[1]: float(advice[2])}) is None


def test_a_weight_of_zero_is_refused() -> None:
    """Axolotl would count such answers fully."""
    (found,) = method_problems({"rl": "kto", "kto_desirable_weight": 0}, rewarded=False)
    assert found.path == ("kto_desirable_weight",)


@pytest.mark.parametrize("rl", ["dpo", "ipo", "simpo", "orpo", "kto"])
def test_a_cut_answer_gets_an_end(rl: str) -> None:
    """Seen in what the DPO trainer is given: 64 tokens of a long answer, then the end token."""
    block = {"rl": rl, "micro_batch_size": 2, "excess_length_strategy": "truncate"}
    (told,) = (p for p in method_problems(block, rewarded=False) if "cut" in p.message)
    assert (told.path, told.warning) == (("excess_length_strategy",), True)
    dropped = {**block, "excess_length_strategy": "drop"}
    assert not any("cut" in p.message for p in method_problems(dropped, rewarded=False))
