"""Orca without a model: which system message a query meets, erasing, and when nothing is left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from generation import Client, MethodRun

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.errors import StageError
from llmpipe.stages.generate.methods.orca import Orca
from llmpipe.stages.generate.methods.orca.strategies import BY_TASK, GENERIC, STRATEGIES

QUERIES = [
    {"q": f"Why is item {i} heavy?", "source": ["flan", "cot", ""][i % 3]} for i in range(12)
]
BY_SOURCE = {
    "map": {"user": "q", "task": "source"},
    "tasks": {"flan": "choice", "cot": "reasoning"},
}


def explained(request: ChatRequest) -> str:
    """Reply with the seed of the request, which no other request has."""
    return f"Because of reason {request.seed}."


@pytest.fixture
def run(tmp_path: Path) -> MethodRun:
    """Twelve queries of three kinds."""
    made = MethodRun(tmp_path, Orca, method="orca", seeds="./s.jsonl")
    made.write("seeds", QUERIES)
    return made


def test_the_sixteen_system_messages_are_different_and_all_used() -> None:
    """Each of the published kinds stands for one, and fits some kind of task."""
    assert len(set(STRATEGIES.values())) == 16
    assert {name for names in BY_TASK.values() for name in names} == set(STRATEGIES)


def test_a_query_meets_every_message_of_its_kind_of_task_once(run: MethodRun) -> None:
    """Four queries of five, three and five messages: 52 rows, and then nothing is left."""
    state = run(Client(explained), 99, **BY_SOURCE)
    met = Counter((row.made_from[0].id, row.operators[0]) for row in state.rows)
    assert set(met.values()) == {1}
    assert len(met) == 4 * (5 + 3 + 5)
    for row in state.rows:
        assert row.operators[0] in BY_TASK[row.details["task"]]
        turns = {turn["role"]: turn["content"] for turn in row.fields["messages"]}
        assert turns.get("system", "") == STRATEGIES[row.operators[0]]
    assert run.told == ["52 of 99 rows: 12 queries: all used up (rejected: nothing)"]
    assert run.metrics["tasks"] == {"choice": 4, "open": 4, "reasoning": 4}


def test_an_erased_prompt_is_generic_and_the_provenance_keeps_the_strategy(run: MethodRun) -> None:
    """The teacher saw the strategy; a query becomes one row, even if a first reply was no use."""
    client = Client(lambda request: "" if request.seed % 2 else explained(request))
    state = run(client, 99, erase_prompt=True, map={"user": "q"})
    assert len(state.rows) == len({row.made_from[0].id for row in state.rows})
    assert {row.fields["messages"][0]["content"] for row in state.rows} == {GENERIC}
    assert len({row.operators for row in state.rows}) > 1
    assert all(row.details["prompt_erased"] for row in state.rows)
    assert {reject.reason for reject in state.rejects} == {"says nothing"}
    asked = {request.messages[0]["content"] for request in client.asked}
    assert GENERIC not in asked


def test_neither_the_order_of_the_seeds_nor_the_count_changes_a_row(run: MethodRun) -> None:
    """The same seeds in another order give the same rows; more rows begin with the same."""
    first = run(Client(explained), 30, **BY_SOURCE).rows
    run.write("seeds", QUERIES[::-1])
    again = run(Client(explained), 40, teacher={**run.fields["teacher"], "concurrency": 9},
                **BY_SOURCE).rows  # fmt: skip
    assert [row.fields for row in again[:30]] == [row.fields for row in first]
    other = run(Client(explained), 30, random_seed=1, **BY_SOURCE).rows
    assert [row.operators for row in other] != [row.operators for row in first]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (ChatReply("Because", truncated=True), "truncated"),
        (ChatReply("Sorry, I cannot."), "apology"),
        (ChatReply(problem="too long", detail="9 tokens"), "too long"),
    ],
)
def test_what_is_rejected(run: MethodRun, reply: ChatReply, reason: str) -> None:
    """Where nothing passes, the stage fails with the counts."""
    with pytest.raises(StageError, match=rf"no usable row from 12 queries \(rejected: {reason} 12"):
        run(Client(lambda request: reply), 4, map={"user": "q"})


def test_a_reply_that_repeats_the_query_is_rejected(run: MethodRun) -> None:
    """An echo of the prompt is not an answer."""
    with pytest.raises(StageError, match="repeats the prompt 12"):
        run(Client(lambda request: request.messages[-1]["content"]), 4, map={"user": "q"})


def test_an_unknown_kind_of_task_is_named_with_its_row(run: MethodRun) -> None:
    """The message has the line, the kinds and the one probably meant."""
    run.write("seeds", [{"q": "Why?", "source": "choice"}, {"q": "How?", "source": "reasonning"}])
    with pytest.raises(StageError) as caught:
        run(Client(explained), 1, map={"user": "q", "task": "source"})
    assert caught.value.message.startswith("seeds.jsonl:2: the kind of task is 'reasonning'")
    assert "reasoning" in str(caught.value.hint)


def test_rows_that_ask_the_same_are_asked_once(run: MethodRun) -> None:
    """Case and white space do not make another query; what is not used is said."""
    run.write("seeds", [{"q": "Why  so?"}, {"q": "why so?"}, {"q": "How?"}])
    run(Client(explained), 2, map={"user": "q"})
    assert run.told[0] == "seeds.jsonl: rows whose query is another's, not used: 1"


def test_tasks_without_a_column_are_a_mistake(run: MethodRun) -> None:
    """A map of values that no column has would do nothing."""
    config = run.config(count=1, tasks={"flan": "choice"})
    assert [field for field, _ in config.own_problems()] == [("tasks",)]
