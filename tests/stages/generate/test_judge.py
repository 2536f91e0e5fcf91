"""The judge: means of repeats with an interval, and the judges that cannot be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from generation import Client
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.judge import CONTROL, Judge, Judging, Rating
from llmpipe.stages.generate.pace import Pace

JUDGE = Judge(rubric="Is it good?", scale=(1, 5), threshold=3)


def scored(score: Callable[[str, int], Any]) -> Client:
    """Return a client that scores texts; the control gets the lowest score."""

    def reply(request: ChatRequest) -> str:
        text = request.messages[-1]["content"]
        given = 1 if CONTROL in text else score(text, request.draw)
        return json.dumps({"score": given})

    return Client(reply)


def rated(client: Client, texts: list[str], judge: Judge = JUDGE) -> tuple[list[Rating], list[str]]:
    """Return the ratings and the warnings."""
    told: list[str] = []
    teacher = Teacher(client, Pace(lambda note: None), temperature=0.7, max_tokens=64)
    return Judging(judge, 0, told.append).rate(teacher, texts), told


def test_the_mean_of_repeats_decides_and_has_an_interval() -> None:
    """Scores 3, 4 and 4: 3.67, with Student's interval cut off at the ends of the scale."""
    ratings, told = rated(scored(lambda text, draw: [3, 4, 4][draw]), ["A text."])
    assert ratings[0].scores == (3, 4, 4)
    assert ratings[0].told(JUDGE) == {
        "score": 3.667,
        "scores": [3, 4, 4],
        "interval": [2.232, 5],
    }
    assert not told


def test_a_text_below_the_threshold_says_its_figure() -> None:
    """The reject has the mean, the interval and what was needed."""
    judging = Judging(JUDGE, 0, print)
    assert judging.reject(Rating((2, 3, 3))) == (
        "low score",
        "2.67 (95 % interval 1.232 to 4.101), needs 3",
    )
    assert judging.reject(Rating((3, 3, 3))) is None


def test_a_judge_that_always_says_yes_is_told() -> None:
    """It accepts the control, and gives all texts the same score."""
    client = Client(lambda request: '{"score": 5}')
    _, told = rated(client, [f"Text {i}." for i in range(9)])
    assert "gives a bad text 5.00 and would accept it (threshold 3)" in told[0]
    assert "each of the first 9 texts the same score, 5" in told[1]


@pytest.mark.parametrize("bad", ["maybe", '{"score": 9}', '{"score": true}', '{"score": "4"}', ""])
def test_a_score_outside_the_scale_is_none(bad: str) -> None:
    """One odd reply of three is left out; a text with mostly odd replies is rejected."""
    one = Client(lambda request: bad if request.draw == 0 else '{"score": 4}')
    ratings, _ = rated(one, ["A text."])
    assert ratings[0].scores == (4, 4)
    most = Client(lambda request: '{"score": 4}' if request.draw == 0 else bad)
    ratings, _ = rated(most, ["A text."])
    assert ratings[0].problem == "malformed judgment"


def test_a_judge_that_cannot_be_asked_rejects_with_the_reason() -> None:
    """The problem of the reply is that of the text."""
    ratings, told = rated(Client(lambda request: ChatReply(problem="too long")), ["A text."])
    assert ratings[0].problem == "too long"
    assert not told


@pytest.mark.parametrize(
    ("fields", "temperature", "wrong"),
    [
        ({"scale": [5, 1]}, 0.7, "scale"),
        ({"scale": [0, 1000]}, 0.7, "scale"),
        ({"threshold": 1}, 0.7, "threshold"),
        ({"threshold": 6}, 0.7, "threshold"),
        ({}, 0.0, "repeats"),
    ],
)
def test_a_judge_without_sense_is_refused(
    fields: dict[str, Any], temperature: float, wrong: str
) -> None:
    """Each at its field, before anything runs."""
    judge = msgspec.convert({"rubric": "Good?", "scale": [1, 5], "threshold": 3, **fields}, Judge)
    assert [field for field, _ in judge.problems(temperature)] == [wrong]


def test_a_rubric_without_a_scale_is_refused() -> None:
    """The field is needed: a score alone means nothing."""
    with pytest.raises(msgspec.ValidationError, match="scale"):
        msgspec.convert({"rubric": "Good?", "threshold": 3}, Judge)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=16))
def test_the_interval_holds_the_mean_and_stays_in_the_scale(scores: list[int]) -> None:
    """Whatever the scores; a single one has no interval."""
    rating = Rating(tuple(scores))
    ends = rating.interval(JUDGE)
    assert (ends is None) == (len(scores) == 1)
    if ends:
        assert 1 <= ends[0] <= rating.mean + 0.001
        assert rating.mean - 0.001 <= ends[1] <= 5
