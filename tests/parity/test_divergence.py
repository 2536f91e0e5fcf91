"""The divergence of predictions, compared with values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.parity.divergence import divergence


def test_values_match_a_sum_by_hand() -> None:
    """Two tokens over two words: KL of (1/2, 1/2) and (3/4, 1/4), and of equal ones."""
    half, quarter = [0.5, 0.5], [0.75, 0.25]
    found = divergence(np.log([half, half]), np.log([quarter, half]))
    by_hand = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert found.tokens == 2
    assert found.max_kl == pytest.approx(by_hand)
    assert found.mean_kl == pytest.approx(by_hand / 2)
    assert found.max_difference == pytest.approx(math.log(2))
    assert found.same_first == 1.0


def test_the_direction_is_from_the_reference() -> None:
    """A word that only the candidate rules out costs more than one that only it allows."""
    sure, open_ = np.log([[0.999, 0.001]]), np.log([[0.5, 0.5]])
    assert divergence(open_, sure).mean_kl > 4 * divergence(sure, open_).mean_kl


@given(st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=4))
def test_equal_predictions_are_at_distance_zero(logits: list[list[float]]) -> None:
    """Also if one side gives logits and the other log-probabilities."""
    rows = np.array(logits)
    shifted = rows + 7.0
    found = divergence(rows, shifted)
    assert found.mean_kl == pytest.approx(0, abs=1e-9)
    assert found.max_difference == pytest.approx(7)


def test_a_value_that_is_not_finite_is_no_small_distance() -> None:
    """NaN must not count as near: comparisons with a limit have to see it."""
    found = divergence(np.zeros((2, 3)), np.array([[0, 0, math.nan], [0, 0, 0]]))
    assert not found.mean_kl <= 1.0


@pytest.mark.parametrize("shape", [(0, 3), (2, 4)])
def test_what_cannot_be_compared_is_refused(shape: tuple[int, int]) -> None:
    """No tokens, or another vocabulary."""
    with pytest.raises(ValueError, match="cannot compare"):
        divergence(np.zeros((2, 3) if shape[0] else shape), np.zeros(shape))
