"""Evol-Instruct without a model: what is rejected and why, and that draws depend on nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.contracts import Artifact
from llmpipe.formats.leakage import normalize
from llmpipe.stages.generate.answers import reject_answer
from llmpipe.stages.generate.asking import VERDICT_TOKENS, Teacher
from llmpipe.stages.generate.methods.evol_instruct import EvolInstruct, EvolInstructConfig
from llmpipe.stages.generate.methods.evol_instruct.filters import reject_rewrite
from llmpipe.stages.generate.methods.evol_instruct.prompts import (
    JUDGE_SCHEMA,
    OPERATORS,
    REWRITE_SCHEMA,
    judge_messages,
    rewrite_messages,
)
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.protocol import GeneratedRow, MethodContext, Reject
from llmpipe.stages.generate.seeds import Seed
from llmpipe.stages.generate.text import read_field

CONFIG = {
    "kind": "generate",
    "method": "evol-instruct",
    "teacher": {"engine": "openai", "model": "m", "base_url": "http://h/v1"},
    "seeds": "./seeds.jsonl",
    "count": 100,
    "random_seed": 3,
}


class Client:
    """Answers requests in this process; ``reply`` may answer in its place, by purpose and text."""

    def __init__(self, reply: Callable[[str, str], ChatReply | None] | None = None) -> None:
        self.reply = reply or (lambda purpose, text: None)
        self.asked: list[ChatRequest] = []

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Return one reply to each request, in their order."""
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


class Evolution:
    """Six seeds in a file, taken through their rounds by calling it."""

    def __init__(self, folder: Path) -> None:
        rows = [{"instruction": f"How heavy is item {i}?"} for i in range(1, 7)]
        (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.inputs = {"seeds": Artifact(folder / "seeds.jsonl", "records", "", "seeds.jsonl")}

    def method(self, rounds: int = 2) -> EvolInstruct:
        """Return the method with the seeds read."""
        config = msgspec.convert({**CONFIG, "rounds": rounds}, EvolInstructConfig)
        return EvolInstruct(MethodContext(config, self.inputs, lambda: 100, warn=print))

    def __call__(self, client: Any, rounds: int = 2, seeds: Sequence[Seed] | None = None) -> Any:
        """Return the events, seed by seed; of these seeds or of all."""
        method = self.method(rounds)
        teacher = Teacher(client, Pace(lambda note: None), temperature=0.7, max_tokens=64)
        chains = method.evolve(teacher, seeds or method.seeds, draw=0)
        return [event for chain in chains for event in chain.events]


@pytest.fixture
def evolve(tmp_path: Path) -> Evolution:
    """Six seeds, nothing asked yet."""
    return Evolution(tmp_path)


def test_a_prompt_evolves_from_round_to_round(evolve: Evolution) -> None:
    """The second round rewrites what the first one made; each row lists the operators so far."""
    client = Client()
    events = evolve(client)
    assert len(events) == 12
    assert all(isinstance(event, GeneratedRow) for event in events)
    first, second = events[:2]
    assert second.operators[:1] == first.operators
    rewrites = [r.messages[-1]["content"] for r in client.asked if r.schema == REWRITE_SCHEMA]
    assert any(text.endswith(f"Prompt: {first.question}") for text in rewrites)


def test_other_seeds_change_nothing(evolve: Evolution) -> None:
    """What becomes of a seed does not depend on which others are in its group."""
    together = evolve(Client())
    apart = [event for seed in evolve.method().seeds for event in evolve(Client(), seeds=[seed])]
    assert apart == together


def test_the_judge_is_asked_without_randomness(evolve: Evolution) -> None:
    """Rewriting and answering sample; judging does not."""
    client = Client()
    evolve(client, rounds=1)
    judging = {r.temperature for r in client.asked if r.schema == JUDGE_SCHEMA}
    others = {r.temperature for r in client.asked if r.schema != JUDGE_SCHEMA}
    assert (judging, others) == ({0.0}, {0.7})


@pytest.mark.parametrize(
    ("purpose", "reply", "reason"),
    [
        ("rewrite", ChatReply('{"instruction": "Wei', truncated=True), "truncated"),
        ("rewrite", ChatReply('{"prompt": "Weigh it."}'), "malformed"),
        ("rewrite", ChatReply('{"instruction": "?!"}'), "empty"),
        ("rewrite", ChatReply('{"instruction": "The rewritten prompt"}'), "leaks the prompt"),
        ("rewrite", ChatReply(problem="too long", detail="9 tokens"), "too long"),
        ("judge", ChatReply("maybe"), "malformed judgment"),
        ("judge", ChatReply('{"equal": true}'), "no information gain"),
        ("answer", ChatReply("Twice as", truncated=True), "truncated"),
        ("answer", ChatReply("Sorry, I cannot weigh."), "apology"),
        ("answer", ChatReply("It is what it is."), "says nothing"),
        ("answer", ChatReply(""), "says nothing"),
    ],
)
def test_what_fails_a_test_is_rejected_with_the_reason(
    evolve: Evolution, purpose: str, reply: ChatReply, reason: str
) -> None:
    """The chain goes on from the prompt that it had."""
    client = Client(lambda asked, text: reply if asked == purpose else None)
    events = evolve(client)
    assert [event.reason for event in events if isinstance(event, Reject)] == [reason] * 12
    rewrites = [r.messages[-1]["content"] for r in client.asked if r.schema == REWRITE_SCHEMA]
    assert all("item" in text for text in rewrites)


def test_a_rewrite_that_repeats_its_parent_gains_nothing() -> None:
    """Case, spaces and Unicode form do not make a new prompt."""
    assert reject_rewrite("How heavy is it?", "how  HEAVY is it?") == "no information gain"
    assert reject_rewrite("Explain the given prompt.", "Explain the given prompt twice.") is None


def test_a_long_answer_may_say_sorry() -> None:
    """Only a short one that says sorry is a refusal."""
    assert reject_answer("Sorry, no. " + "It weighs two grams on the moon. " * 20) is None


@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    """Texts that were equal once normalized stay equal."""
    assert normalize(normalize(text)) == normalize(text)


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


def test_a_teacher_that_thinks_gets_room_to_judge_and_keeps_its_thoughts(evolve: Evolution) -> None:
    """Regression: a judgment's few tokens were used up by thinking, so every prompt was rejected."""

    def reply(purpose: str, text: str) -> ChatReply | None:
        if purpose == "judge":
            if client.asked[-1].max_tokens == VERDICT_TOKENS:
                return ChatReply("", truncated=True, reasoning="Do they ask for")
            return ChatReply(json.dumps({"equal": False}), reasoning="They differ.")
        return ChatReply("Two of them.", reasoning="Hm.") if purpose == "answer" else None

    client = Client(reply)
    events = evolve(client, rounds=1)
    answers = [(event.fields["messages"][-1]["content"], event.reasoning) for event in events]
    assert answers == [("Two of them.", "Hm.")] * 6


def test_a_reply_that_ends_while_thinking_says_so(evolve: Evolution) -> None:
    """The reject names the reason, and its text contains no reasoning."""
    client = Client(lambda purpose, text: ChatReply("", truncated=True, reasoning="Hm, the"))
    events = evolve(client, rounds=1)
    assert {(event.reason, event.text) for event in events} == {("truncated", "")}
    assert all("reasoning" in event.detail for event in events)
