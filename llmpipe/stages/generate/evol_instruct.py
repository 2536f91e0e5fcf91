"""Evol-Instruct: make prompts harder and rarer round by round, answer them, eliminate the bad.

Each seed starts a chain. A round rewrites the chain's prompt by an operator drawn at random, asks a
judge whether anything was gained, and has the new prompt answered. What fails any test is rejected
and the chain goes on from the prompt that it had; what passes is a row, and the chain goes on from
it. All chains of a group finish a step before the next begins, and every draw depends on nothing
but (seed, row, draw, round): which reply comes first changes nothing.

The words are in `prompts`, the tests that need no call in `filters`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmpipe.stages.generate.filters import reject_answer, reject_rewrite
from llmpipe.stages.generate.prompts import (
    JUDGE_SCHEMA,
    OPERATORS,
    REWRITE_SCHEMA,
    Messages,
    judge_messages,
    rewrite_messages,
)
from llmpipe.stages.generate.seeds import Seed

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatClient, ChatReply, ChatRequest

STEPS = 3
"""Replies that a round takes for a seed: rewriting, judging, answering."""
JUDGE_TOKENS = 32
"""Tokens that a judgement may take; it is one word in JSON."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the teacher decodes when it rewrites and answers."""

    temperature: float
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Made:
    """A row that passed every test: the prompt, its answer, and the operators that led to it."""

    seed: Seed
    instruction: str
    answer: str
    operators: tuple[str, ...]
    reasoning: str = ""
    """What the teacher thought before it answered; no part of the answer."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A text that did not pass, and why. ``detail`` holds the endpoint's words, if any."""

    seed: Seed
    reason: str
    text: str
    operator: str
    round: int
    detail: str = ""


@dataclass(slots=True)
class Chain:
    """A seed on its way through the rounds. ``draw`` tells repeated chains of a seed apart."""

    seed: Seed
    draw: int
    instruction: str
    operators: tuple[str, ...] = ()
    events: list[Made | Rejected] = field(default_factory=list)


@dataclass(slots=True)
class _Trial:
    """One chain's attempt in one round; dropped as soon as a test fails."""

    chain: Chain
    operator: str
    rewritten: str = ""


class EvolInstruct:
    """Runs groups of chains against one teacher."""

    def __init__(
        self,
        client: ChatClient,
        *,
        seed: int,
        rounds: int,
        decoding: Decoding,
        on_step: Callable[[str], None],
        on_asked: Callable[[int, int], None] = lambda count, after: None,
    ) -> None:
        """Prepare to evolve; ``on_asked`` hears how many replies are asked for, and come after."""
        self.client = client
        self.seed = seed
        self.rounds = rounds
        self.decoding = decoding
        self.on_step = on_step
        self.on_asked = on_asked
        self._after = 0

    def evolve(self, seeds: Sequence[Seed], draw: int) -> list[Chain]:
        """Take each seed through all the rounds; the chains hold what came of it, in order."""
        chains = [Chain(seed, draw, seed.instruction) for seed in seeds]
        for number in range(1, self.rounds + 1):
            later = STEPS * len(chains) * (self.rounds - number)
            trials = [_Trial(chain, self._operator(chain, number)) for chain in chains]
            self._after = later + 2 * len(trials)
            trials = self._rewrite(trials, number)
            self._after = later + len(trials)
            trials = self._judge(trials, number)
            self._after = later
            self._answer(trials, number)
        return chains

    def _rewrite(self, trials: Sequence[_Trial], number: int) -> list[_Trial]:
        self.on_step(f"round {number}: rewriting")
        asked = [
            self._request(t, number, rewrite_messages(t.operator, t.chain.instruction), "rewrite",
                          REWRITE_SCHEMA)
            for t in trials
        ]  # fmt: skip
        kept = []
        for trial, reply in self._replies(trials, asked, number):
            text = read_field(reply.text, "instruction", str)
            if text is None:
                self._reject(trial, number, "truncated" if reply.truncated else "malformed",
                             reply.text, _without_answer(reply))  # fmt: skip
                continue
            trial.rewritten = text.strip()
            reason = reject_rewrite(trial.chain.instruction, trial.rewritten)
            if reason:
                self._reject(trial, number, reason, trial.rewritten)
            else:
                kept.append(trial)
        return kept

    def _judge(self, trials: Sequence[_Trial], number: int) -> list[_Trial]:
        """Keep the trials that gained something; a judge that thinks first gets room for it."""
        self.on_step(f"round {number}: judging")
        judged = self._judgements(trials, number, JUDGE_TOKENS)
        thinking = [trial for trial, reply in judged if _cut_thinking(reply)]
        judged = [(trial, reply) for trial, reply in judged if not _cut_thinking(reply)]
        if thinking:
            judged += self._judgements(thinking, number, self.decoding.max_tokens)
        kept = []
        for trial, reply in judged:
            equal = read_field(reply.text, "equal", bool)
            if equal is None:
                self._reject(
                    trial, number, "malformed judgement", reply.text, _without_answer(reply)
                )
            elif equal:
                self._reject(trial, number, "no information gain", trial.rewritten)
            else:
                kept.append(trial)
        return kept

    def _judgements(
        self, trials: Sequence[_Trial], number: int, max_tokens: int
    ) -> list[tuple[_Trial, ChatReply]]:
        asked = [
            self._request(t, number, judge_messages(t.chain.instruction, t.rewritten), "judge",
                          JUDGE_SCHEMA, max_tokens)
            for t in trials
        ]  # fmt: skip
        return self._replies(trials, asked, number)

    def _answer(self, trials: Sequence[_Trial], number: int) -> None:
        self.on_step(f"round {number}: answering")
        asked = [self._request(t, number, _question(t), "answer", None) for t in trials]
        for trial, reply in self._replies(trials, asked, number):
            answer = reply.text.strip()
            reason = "truncated" if reply.truncated else reject_answer(answer)
            if reason:
                self._reject(trial, number, reason, answer, _without_answer(reply))
                continue
            chain = trial.chain
            chain.instruction = trial.rewritten
            chain.operators = (*chain.operators, trial.operator)
            chain.events.append(
                Made(chain.seed, chain.instruction, answer, chain.operators, reply.reasoning)
            )

    def _request(
        self,
        trial: _Trial,
        number: int,
        messages: Messages,
        purpose: str,
        schema: dict[str, Any] | None,
        max_tokens: int | None = None,
    ) -> ChatRequest:
        from llmpipe.backends.openai.chat import ChatRequest

        judging = purpose == "judge"
        return ChatRequest(
            messages=messages,
            temperature=0.0 if judging else self.decoding.temperature,
            max_tokens=max_tokens or self.decoding.max_tokens,
            seed=self._number(trial.chain, number, purpose),
            schema=schema,
            draw=trial.chain.draw,
            shared=0 if purpose == "answer" else len(messages) - 1,  # the worked examples
        )

    def _replies(
        self, trials: Sequence[_Trial], requests: Sequence[ChatRequest], number: int
    ) -> list[tuple[_Trial, ChatReply]]:
        """Ask, and pair each trial with its reply; those without one are rejected here."""
        self.on_asked(len(requests), self._after)
        answered = []
        for trial, reply in zip(trials, self.client.ask(requests), strict=True):
            if reply.problem is None:
                answered.append((trial, reply))
            else:
                text = trial.rewritten or trial.chain.instruction
                self._reject(trial, number, reply.problem, text, reply.detail)
        return answered

    def _reject(self, trial: _Trial, number: int, reason: str, text: str, detail: str = "") -> None:
        seed = trial.chain.seed
        trial.chain.events.append(Rejected(seed, reason, text, trial.operator, number, detail))

    def _operator(self, chain: Chain, number: int) -> str:
        names = list(OPERATORS)
        return names[self._number(chain, number, "operator") % len(names)]

    def _number(self, chain: Chain, number: int, purpose: str) -> int:
        return draw_number(self.seed, chain.seed.digest, chain.draw, number, purpose)


def draw_number(*parts: int | str) -> int:
    """Give a number below 2**31 that depends on all the parts and on nothing else."""
    digest = hashlib.sha256(json.dumps(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def read_field(text: str, name: str, kind: type) -> Any | None:
    """Give a field of a JSON reply, or None when it is not there or not of that type.

    An endpoint that does not constrain its decoding may wrap the object in words or a code fence:
    what stands between the first and the last brace counts.
    """
    start, end = text.find("{"), text.rfind("}")
    try:
        value = json.loads(text[start : end + 1])[name] if start >= 0 else None
    except (ValueError, KeyError, RecursionError):
        return None
    return value if isinstance(value, kind) else None


def _cut_thinking(reply: ChatReply) -> bool:
    return reply.truncated and bool(reply.reasoning) and not reply.text


def _without_answer(reply: ChatReply) -> str:
    """Say where a reply ended that holds reasoning and no answer."""
    silent = reply.reasoning and not reply.text
    return "the reply ends inside the teacher's reasoning" if silent else ""


def _question(trial: _Trial) -> Messages:
    system = trial.chain.seed.system
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": trial.rewritten}]
