"""The threshold: computed from labels, or from unrelated questions."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmpipe.errors import StageError
from llmpipe.retrieval.threshold import (
    Threshold,
    from_labeled,
    from_unrelated,
    unrelated_questions,
)

COSINES = st.lists(st.floats(-1, 1, allow_nan=False), min_size=1, max_size=40)


def test_labels_that_can_be_told_apart_are() -> None:
    """Halfway between the lowest answerable question and the highest unanswerable one."""
    found = from_labeled([0.8, 0.6, 0.3, 0.1], [True, True, False, False])
    assert found == Threshold("labeled", 0.45, 4, passed=0.0, refused=0.0)
    assert found.passes(0.6)
    assert not found.passes(0.3)


def test_labels_that_overlap_cost_as_little_as_can_be() -> None:
    """One unanswerable question scores high: letting it pass is better than refusing two."""
    found = from_labeled([0.9, 0.5, 0.4, 0.8, 0.1, 0.2], [True, True, True, False, False, False])
    assert found.cosine == 0.3
    assert (found.passed, found.refused) == (0.3333, 0.0)


@pytest.mark.parametrize("answerable", [True, False])
def test_labels_of_one_kind_are_refused(answerable: bool) -> None:
    """The message says which kind is missing."""
    with pytest.raises(StageError, match="questions with an answer and"):
        from_labeled([0.5, 0.6], [answerable, answerable])


@given(COSINES, st.data())
def test_no_other_threshold_errs_less(cosines: list[float], data: st.DataObject) -> None:
    """Compared with every given cosine as the threshold, rounded like the threshold."""
    rounded = [round(cosine, 2) for cosine in cosines] + [0.5, -0.5]
    labels = [data.draw(st.booleans()) for _ in cosines] + [True, False]
    found = from_labeled(rounded, labels)

    def errors(threshold: float) -> float:
        passed = [c >= threshold for c, label in zip(rounded, labels, strict=True) if not label]
        refused = [c < threshold for c, label in zip(rounded, labels, strict=True) if label]
        return sum(passed) / len(passed) + sum(refused) / len(refused)

    assert found.cosine is not None
    assert all(errors(found.cosine) <= errors(other) + 1e-9 for other in rounded)


@given(COSINES)
@example([0.6])  # 0.6 / 0.0001 is 5999.999…
def test_one_unrelated_question_in_twenty_passes(cosines: list[float]) -> None:
    """Never more; and with a threshold one step lower, more would pass."""
    found = from_unrelated(cosines)
    assert found.cosine is not None
    passed = sum(map(found.passes, cosines))
    assert passed <= len(cosines) * 0.05
    lower = Threshold("given", found.cosine - 2e-4)
    assert sum(map(lower.passes, cosines)) > len(cosines) * 0.05
    assert found.passed == round(passed / len(cosines), 4)


def test_without_a_cosine_nothing_is_held_back() -> None:
    """A search by words has no scale to judge by."""
    assert Threshold("none").passes(-1)


def test_the_unrelated_questions_are_questions() -> None:
    """There are sixty different ones, as the module says."""
    questions = unrelated_questions()
    assert len(set(questions)) == len(questions) == 60
    assert all(question.endswith("?") for question in questions)
