"""Scores of single answers."""

from __future__ import annotations

import pytest

from llmpipe.evaluation.text_metrics import exact_match, json_match, rouge_l, token_f1

pytestmark = pytest.mark.heavy  # rouge-score is one of the extras


@pytest.mark.parametrize(
    ("reference", "answer", "score"),
    [
        ("the cat sat", "the cat sat", 1.0),
        ("The cat, sat.", "the cat sat", 1.0),
        ("the cat sat on the mat", "the cat lay on the mat", 10 / 12),
        ("a b c d", "a c", 2 / 3),
        ("yes", "no", 0.0),
        ("yes", "", 0.0),
        ("Är det så?", "är det så", 1.0),
        ("今日は雨", "今日は晴", 0.75),
        ("पानी ठंडा", "पाना ठंडा", 0.5),
        ("+", "+", 1.0),
        ("+", "-", 0.0),
    ],
)
def test_rouge_l(reference, answer, score):
    """The F-measure of the longest common subsequence of words, in any script."""
    assert rouge_l(reference, answer) == pytest.approx(score)


def test_rouge_l_agrees_with_the_package():
    """On English text, our word splitting gives the same scores as rouge-score."""
    from rouge_score.rouge_scorer import RougeScorer

    reference = "A bygglov is an official decision; it's needed for 2 new buildings (PBL 9 kap.)."
    answer = "It is a decision of officials, needed for new buildings under PBL 9."
    theirs = RougeScorer(["rougeL"]).score(reference, answer)["rougeL"].fmeasure
    assert rouge_l(reference, answer) == pytest.approx(theirs)


def test_exact_match_ignores_white_space_around_only():
    """Case and inner whitespace count."""
    assert exact_match("Yes", " Yes\n") == 1.0
    assert exact_match("Yes", "yes") == 0.0


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ('{"b": [1, 2], "a": "é"}', 1.0),
        ('{"a":"\\u00e9","b":[1,2]}\n', 1.0),
        ('{"a": "é", "b": [2, 1]}', 0.0),
        ('{"a": "é", "b": [true, 2]}', 0.0),
        ('{"a": "é", "b": [1, 2]', 0.0),
        ("[" * 100_000, 0.0),
    ],
)
def test_json_match(answer, score):
    """Layout and key order do not matter; values and their types do."""
    assert json_match('{"a": "é", "b": [1, 2]}', answer) == score


def test_json_match_needs_a_json_reference():
    """A reference that is not JSON is the caller's mistake."""
    with pytest.raises(ValueError):
        json_match("not JSON", "{}")


@pytest.mark.parametrize(
    ("reference", "answer", "score"),
    [
        ("The Normans", "normans!", 1.0),
        ("in the 10th and 11th centuries", "10th century", 2 / 7),  # of 5 and 2 words one is shared
        ("two two one", "two one one", 2 / 3),
        ("France", "Spain", 0.0),
        ("", "", 1.0),
        ("The", "a", 1.0),
        ("", "something", 0.0),
        ("something", "", 0.0),
    ],
)
def test_token_f1(reference: str, answer: str, score: float) -> None:
    """Shared words over all words, without case, punctuation and articles, with multiplicity."""
    assert token_f1(reference, answer) == pytest.approx(score)
    assert token_f1(answer, reference) == pytest.approx(score)
