"""Evol-Instruct without a model: what is eliminated and why, and that draws depend on nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.formats.provenance import Provenance
from llmpipe.stages.generate.evol_instruct import Decoding, EvolInstruct, Made, Rejected, read_field
from llmpipe.stages.generate.filters import normalised, reject_answer, reject_rewrite
from llmpipe.stages.generate.prompts import (
    JUDGE_SCHEMA,
    OPERATORS,
    REWRITE_SCHEMA,
    judge_messages,
    rewrite_messages,
)
from llmpipe.stages.generate.seeds import Seed

SEEDS = [
    Seed(f"{i:064x}", f"seeds.jsonl:{i}", f"How heavy is item {i}?", "", Provenance(f"{i:032x}"))
    for i in range(1, 7)
]


class Teacher:
    """Answers requests in this process; ``reply`` may answer in its place, by purpose and text."""

    def __init__(self, reply: Callable[[str, str], ChatReply | None] | None = None) -> None:
        self.reply = reply or (lambda purpose, text: None)
        self.asked: list[ChatRequest] = []

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Give one reply to each request, in their order."""
        self.asked += requests
        return [self._answer(request) for request in requests]

    def _answer(self, request: ChatRequest) -> ChatReply:
        text = request.messages[-1]["content"]
        if request.schema == REWRITE_SCHEMA:
            default = json.dumps({"instruction": f"Weigh {request.seed} twice."})
            purpose = "rewrite"
        elif request.schema == JUDGE_SCHEMA:
            purpose, default = "judge", json.dumps({"equal": False})
        else:
            purpose, default = "answer", f"Twice {request.seed} grams."
        return self.reply(purpose, text) or ChatReply(default)


def evolve(teacher: Teacher, rounds: int = 2, seeds: Sequence[Seed] = SEEDS) -> list[Any]:
    """Run all the seeds through their rounds; give the events, seed by seed."""
    client: Any = teacher
    decoding = Decoding(temperature=0.7, max_tokens=64)
    method = EvolInstruct(client, seed=3, rounds=rounds, decoding=decoding, on_step=lambda _: None)
    return [event for chain in method.evolve(seeds, draw=0) for event in chain.events]


def test_a_prompt_evolves_from_round_to_round() -> None:
    """The second round rewrites what the first one made; each row lists the operators so far."""
    teacher = Teacher()
    events = evolve(teacher)
    assert len(events) == 12
    assert all(isinstance(event, Made) for event in events)
    first, second = events[:2]
    assert second.operators[:1] == first.operators
    rewrites = [r.messages[-1]["content"] for r in teacher.asked if r.schema == REWRITE_SCHEMA]
    assert any(text.endswith(f"Prompt: {first.instruction}") for text in rewrites)


def test_company_changes_nothing() -> None:
    """What becomes of a seed does not depend on which others go with it."""
    together = evolve(Teacher())
    apart = [event for seed in SEEDS for event in evolve(Teacher(), seeds=[seed])]
    assert apart == together


def test_the_judge_is_asked_without_randomness() -> None:
    """Rewriting and answering sample; judging does not."""
    teacher = Teacher()
    evolve(teacher, rounds=1)
    judging = {r.temperature for r in teacher.asked if r.schema == JUDGE_SCHEMA}
    others = {r.temperature for r in teacher.asked if r.schema != JUDGE_SCHEMA}
    assert (judging, others) == ({0.0}, {0.7})


@pytest.mark.parametrize(
    ("purpose", "reply", "reason"),
    [
        ("rewrite", ChatReply('{"instruction": "Wei', truncated=True), "truncated"),
        ("rewrite", ChatReply('{"prompt": "Weigh it."}'), "malformed"),
        ("rewrite", ChatReply('{"instruction": "?!"}'), "empty"),
        ("rewrite", ChatReply('{"instruction": "The rewritten prompt"}'), "leaks the prompt"),
        ("rewrite", ChatReply(problem="too long", detail="9 tokens"), "too long"),
        ("judge", ChatReply("maybe"), "malformed judgement"),
        ("judge", ChatReply('{"equal": true}'), "no information gain"),
        ("answer", ChatReply("Twice as", truncated=True), "truncated"),
        ("answer", ChatReply("Sorry, I cannot weigh."), "apology"),
        ("answer", ChatReply("It is what it is."), "says nothing"),
        ("answer", ChatReply(""), "says nothing"),
    ],
)
def test_what_fails_a_test_is_rejected_with_the_reason(
    purpose: str, reply: ChatReply, reason: str
) -> None:
    """The chain goes on from the prompt that it had."""
    teacher = Teacher(lambda asked, text: reply if asked == purpose else None)
    events = evolve(teacher)
    assert [event.reason for event in events if isinstance(event, Rejected)] == [reason] * 12
    rewrites = [r.messages[-1]["content"] for r in teacher.asked if r.schema == REWRITE_SCHEMA]
    assert all("item" in text for text in rewrites)


def test_a_rewrite_that_repeats_its_parent_gains_nothing() -> None:
    """Case, spaces and Unicode form do not make a new prompt."""
    assert reject_rewrite("How heavy is it?", "how  HEAVY is it?") == "no information gain"
    assert reject_rewrite("Explain the given prompt.", "Explain the given prompt twice.") is None


def test_a_long_answer_may_say_sorry() -> None:
    """Only a short one that says sorry is a refusal."""
    assert reject_answer("Sorry, no. " + "It weighs two grams on the moon. " * 20) is None


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    """Texts that were equal once normalised stay equal."""
    assert normalised(normalised(text)) == normalised(text)


@given(st.text(), st.text())
def test_a_field_is_found_in_words_and_fences(before: str, value: str) -> None:
    """An object inside other words counts; a wrong type does not; nothing raises."""
    said = before.replace("{", "").replace("}", "")
    reply = f"{said}```json\n{json.dumps({'instruction': value})}\n```"
    assert read_field(reply, "instruction", str) == value
    assert read_field(reply, "instruction", bool) is None
    assert read_field(before, "equal", bool) is None


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_request_shows_two_worked_examples(operator: str) -> None:
    """Roles alternate, end with the question, and the examples obey the schema."""
    for messages in (rewrite_messages(operator, "Weigh it."), judge_messages("a", "b")):
        assert [m["role"] for m in messages] == ["user", "assistant"] * 2 + ["user"]
        for example in messages[1::2]:
            assert set(json.loads(example["content"])) in ({"instruction"}, {"equal"})


def test_a_teacher_that_thinks_gets_room_to_judge_and_keeps_its_thoughts() -> None:
    """Regression: a judgement's few tokens were used up by thinking, so every prompt was rejected."""

    def reply(purpose: str, text: str) -> ChatReply | None:
        if purpose == "judge":
            known = teacher.asked[-len(SEEDS) :]
            if all(request.max_tokens < 64 for request in known):
                return ChatReply("", truncated=True, reasoning="Do they ask for")
            return ChatReply(json.dumps({"equal": False}), reasoning="They differ.")
        return ChatReply("Two of them.", reasoning="Hm.") if purpose == "answer" else None

    teacher = Teacher(reply)
    events = evolve(teacher, rounds=1)
    assert [(event.answer, event.reasoning) for event in events] == [("Two of them.", "Hm.")] * 6


def test_a_reply_that_ends_while_thinking_says_so() -> None:
    """The reject names the reason, and its text holds no thoughts."""
    teacher = Teacher(lambda purpose, text: ChatReply("", truncated=True, reasoning="Hm, the"))
    events = evolve(teacher, rounds=1)
    assert {(event.reason, event.text) for event in events} == {("truncated", "")}
    assert all("reasoning" in event.detail for event in events)
