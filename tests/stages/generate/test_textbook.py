"""Textbooks without a model: the grid and its order, topics, exercises and what the judge drops."""

from __future__ import annotations

import json
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from generation import Client, MethodRun
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.errors import StageError
from llmpipe.stages.generate.methods.textbook import Textbook
from llmpipe.stages.generate.order import shuffled

GRID = {
    "topics": [f"topic {i}" for i in range(4)],
    "audiences": ["children", "adults", "experts"],
    "styles": ["a story", "a list"],
}


def written(request: ChatRequest) -> str:
    """Write a text that no other request gets; score 4 for it, 0 for the control."""
    fields = (request.schema or {}).get("properties", {})
    asked = request.messages[-1]["content"]
    if "score" in fields:
        return json.dumps({"score": 0 if "Seven the of" in asked else 4})
    if "question" in fields:
        return json.dumps({"question": f"What is {request.seed}?", "answer": f"{request.seed}."})
    if "topics" in fields:
        return json.dumps({"topics": [f"Part {request.seed} {i}" for i in range(3)]})
    return f"Lesson {request.seed} explains it."


@pytest.fixture
def run(tmp_path: Path) -> MethodRun:
    """A grid of 24 cells."""
    return MethodRun(tmp_path, Textbook, method="textbook", **GRID)


@given(st.integers(1, 500), st.integers())
def test_the_order_holds_each_number_once(size: int, key: int) -> None:
    """The walk is a permutation, the same for the same key."""
    order = list(shuffled(size, key))
    assert sorted(order) == list(range(size))
    assert order == list(shuffled(size, key))


def test_a_grid_of_a_billion_cells_costs_nothing_until_it_is_drawn(tmp_path: Path) -> None:
    """Ten cells of it take no longer than ten of a small one; another key gives other cells."""
    begin = time.process_time()
    first = list(islice(shuffled(10**9, 0), 10))
    assert first != list(islice(shuffled(10**9, 1), 10))
    assert len({place // 10**7 for place in first}) > 5
    run = MethodRun(tmp_path, Textbook, method="textbook")
    axes = {name: [f"{name} {i}" for i in range(100)] for name in ("topics", "audiences", "styles")}
    client = Client(written)
    state = run(client, 5, judge=None, **axes)
    assert len(state.rows) == len(client.asked) == 5
    assert run.metrics["cells"] == 10**6
    assert time.process_time() - begin < 1


def test_each_cell_is_drawn_once_in_a_pass(run: MethodRun) -> None:
    """24 rows are the 24 cells; the next pass draws them again in other words."""
    state = run(Client(written), 30)
    cells = Counter(
        (row.details["topic"], row.details["audience"], row.details["style"]) for row in state.rows
    )
    assert len(cells) == 24
    assert sorted(cells.values()) == [1] * 18 + [2] * 6
    row = state.rows[0]
    assert set(row.fields) == {"text"}
    assert row.details["judge"] == {"score": 4, "scores": [4, 4, 4], "interval": [4, 4]}
    assert run.metrics["judge"] == {"texts": 30, "passed": 30, "mean": 4, "control": 0}


def test_a_higher_count_begins_with_the_same_rows(run: MethodRun) -> None:
    """Neither the count nor the concurrency changes a row; the random seed does."""
    first = run(Client(written), 5).rows
    teacher = {**run.fields["teacher"], "concurrency": 9}
    assert run(Client(written), 20, teacher=teacher).rows[:5] == first
    assert run(Client(written), 5, random_seed=1).rows != first


def test_an_exercise_is_a_question_with_its_answer(run: MethodRun) -> None:
    """The judge reads both."""
    client = Client(written)
    state = run(client, 3, form="exercise")
    turns = state.rows[0].fields["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    judged = [request for request in client.asked if "score" in str(request.schema)]
    told = f"Question: {turns[0]['content']}\nAnswer: {turns[1]['content']}"
    assert any(told in request.messages[-1]["content"] for request in judged)


def test_what_the_judge_drops_is_counted_and_replaced(run: MethodRun) -> None:
    """Every other text scores 1: there are still as many rows as wanted."""

    def reply(request: ChatRequest) -> str:
        asked = request.messages[-1]["content"]
        if "score" in str(request.schema):
            return json.dumps({"score": 1 if "1 explains" in asked or "3 explains" in asked else 5})
        return written(request)

    state = run(Client(reply), 12)
    assert len(state.rows) == 12
    assert {reject.reason for reject in state.rejects} == {"low score"}
    assert state.rejects[0].detail == "1.00 (95 % interval 1 to 1), needs 3"
    assert state.rejects[0].operator == "judge"


def test_topics_come_from_rows_and_from_the_teacher(run: MethodRun) -> None:
    """Rows are parents; listed topics are asked for until there are enough."""
    run.write("topic_rows", [{"t": "tides"}, {"t": ""}, {"t": "Tides"}, {"t": "topic 1"}])
    client = Client(written)
    state = run(client, 40, topic_rows="./t.jsonl", map={"topic": "t"}, subject="the sea",
                subject_topics=7, judge=None)  # fmt: skip
    assert run.told == [
        "topic_rows.jsonl: rows with an empty or repeated topic, not used: 2",
        "topics that were listed already, not used: 1",
    ]
    assert run.metrics["topics"] == 4 + 1 + 7
    lists = [request for request in client.asked if "topics" in str(request.schema)]
    assert len(lists) == 3
    assert "These exist already: Part" in lists[1].messages[-1]["content"]
    parents = {row.details["topic"] for row in state.rows if row.made_from}
    assert parents == {"Tides"}


def test_neither_the_order_of_the_topic_rows_nor_their_repetition_matters(run: MethodRun) -> None:
    """The same topics in another order give the same rows."""
    rows = [{"topic": f"tide {i}"} for i in range(9)]
    made = []
    for each in (rows, [*rows[::-1], rows[3]]):
        run.write("topic_rows", each)
        state = run(Client(written), 30, topics=None, topic_rows="./t.jsonl", judge=None)
        made.append([row.fields for row in state.rows])
    assert made[0] == made[1]


def test_a_subject_that_yields_too_few_topics_is_told(run: MethodRun) -> None:
    """Three replies without a new topic end the list; without any topic the stage fails."""
    same = Client(lambda r: '{"topics": ["Tides"]}' if "topics" in str(r.schema) else written(r))
    run(same, 1, topics=None, subject="the sea", judge=None)
    assert run.told == [
        "subject: 1 of 100 topics; then 3 replies in a row had no new one (last: nothing new)"
    ]
    none = Client(lambda request: ChatReply('{"topics": ["Ti', truncated=True))
    with pytest.raises(StageError, match=r"no topic of 'the sea' in 3 replies \(last: truncated\)"):
        run(none, 1, topics=None, subject="the sea")


@pytest.mark.parametrize(
    ("reply", "form", "reason"),
    [
        (ChatReply("A lesson", truncated=True), "lesson", "truncated"),
        (ChatReply("  "), "lesson", "says nothing"),
        (ChatReply('{"question": "Why'), "exercise", "malformed"),
        (ChatReply('{"question": " ", "answer": "So."}'), "exercise", "malformed"),
        (
            ChatReply('{"question": "Why rain?", "answer": "why rain?"}'),
            "exercise",
            "repeats the prompt",
        ),
        (ChatReply(problem="failed", detail="500"), "exercise", "failed"),
    ],
)
def test_what_is_rejected(run: MethodRun, reply: ChatReply, form: str, reason: str) -> None:
    """Where nothing passes, the stage fails with the counts, and the judge is not asked."""
    with pytest.raises(StageError, match=rf"a grid of 24 cells \(rejected: {reason} 24\)"):
        run(Client(lambda request: reply), 4, form=form)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"topics": None}, ("topics",)),
        ({"topics": []}, ("topics",)),
        ({"audiences": []}, ("audiences",)),
        ({"styles": ["a story", "a story"]}, ("styles", 1)),
        ({"styles": [" "]}, ("styles", 0)),
        ({"map": {"topic": "t"}}, ("map",)),
        ({"judge": {"rubric": "Good?", "scale": [5, 1], "threshold": 3}}, ("judge", "scale")),
    ],
)
def test_an_empty_grid_is_refused(run: MethodRun, fields: dict[str, Any], wrong: Any) -> None:
    """Each mistake at its field, before anything runs."""
    assert wrong in [field for field, _ in run.config(count=1, **fields).own_problems()]
