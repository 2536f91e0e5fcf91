"""What is told while a teacher replies: replies done, tokens a second, time left."""

from __future__ import annotations

from llmpipe.stages.generate.pace import Pace


def test_it_tells_how_it_goes() -> None:
    """By the pace of the run so far; what the journal held took no time and counts as done.

    Replies that come at once are told of together.
    """
    now, told = [0.0], list[str]()
    pace = Pace(told.append, clock=lambda: now[0])
    pace.step("round 1: rewriting")
    pace.asked(4, after=20)
    pace.replied(None)
    now[0] += 10
    pace.replied(100)
    now[0] += 10
    pace.replied(100)
    assert told == [
        "round 1: rewriting",
        "round 1: rewriting, 2 of 4 replies, 10 tokens/s, about 4 min left",
        "round 1: rewriting, 3 of 4 replies, 10 tokens/s, about 4 min left",
    ]
    pace.step("round 1: judging")
    pace.asked(2, after=0)
    now[0] += 5
    pace.replied(0)  # of an endpoint that does not say
    assert told[-1] == "round 1: judging, 1 of 2 replies, less than a minute left"
    pace.replied(5)
    assert told[-1] == "round 1: judging, 2 of 2 replies, 1 tokens/s"
