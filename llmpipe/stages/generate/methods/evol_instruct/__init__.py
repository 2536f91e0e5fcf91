"""Evol-Instruct: rewrite prompts to be harder or rarer, answer them, drop those without gain.

Each seed starts a chain. A round rewrites the chain's prompt with a random operator, asks a judge
whether the new prompt gains anything, and lets the teacher answer it. If a text fails a test, it is
rejected and the chain keeps its prompt. If it passes, it becomes a row, and the chain continues
with the new prompt. All chains of a group finish a step before the next begins, and every draw
depends only on (random seed, row, pass, round), so the order of the replies does not matter.

As published by Xu et al. 2023 (WizardLM), with four rounds by default. The requests are worded for
chat models, with worked examples for small teachers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from llmpipe.backends.spending import BudgetReachedError
from llmpipe.contracts import Finding, Input
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.stages.generate.answers import reject_answer
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.methods.evol_instruct.filters import reject_rewrite
from llmpipe.stages.generate.methods.evol_instruct.prompts import (
    JUDGE_SCHEMA,
    OPERATORS,
    REWRITE_SCHEMA,
    judge_messages,
    rewrite_messages,
)
from llmpipe.stages.generate.protocol import (
    GenerateConfig,
    GeneratedRow,
    MethodContext,
    Reject,
    Traffic,
)
from llmpipe.stages.generate.replies import Messages, without_answer
from llmpipe.stages.generate.seeds import Seed, SeedMap, read_seeds
from llmpipe.stages.generate.text import draw_number, read_field

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply, ChatRequest

STEPS = 3
"""Replies that a round takes for a seed: rewriting, judging, answering."""

BYTES_PER_TOKEN = 3
"""For estimates: most tokenizers use more bytes for a token of English."""


class EvolInstructConfig(GenerateConfig, frozen=True, kw_only=True):
    """Rewrite seed prompts round by round, and answer them."""

    method: Literal["evol-instruct"]
    """The method: seed prompts are rewritten to be harder or rarer."""
    seeds: str
    """The prompts to start from: a file (JSONL, JSON or CSV), or a stage's records or dataset."""
    map: SeedMap | None = None
    """The columns of a seed row to use; known formats and a column `instruction` need none."""
    rounds: Annotated[int, Meta(ge=1, le=16)] = 4
    """Number of times that a prompt is rewritten further. Seeds are used again until there are
    `count` rows."""

    def sources(self) -> Mapping[str, Input]:
        return {"seeds": Input(("seeds",), self.seeds, ("records", "dataset"))}

    def review(self) -> Iterable[Finding]:
        return absent([self.seeds], named_columns(("map",), self.map))

    def traffic(self) -> Traffic:
        """Return three requests for each row: the longest operator, and prompts of full length.

        A prompt is shown once to be rewritten, twice to be judged, and once to be answered.
        """
        longest = max(_size(rewrite_messages(operator, "")) for operator in OPERATORS)
        words = (longest + _size(judge_messages("", ""))) // BYTES_PER_TOKEN
        prompts = words + 4 * self.teacher.max_tokens
        replies = STEPS * self.teacher.max_tokens
        return Traffic(STEPS * self.count, prompts * self.count, replies * self.count)


def _size(messages: Messages) -> int:
    return sum(len(message["content"].encode()) for message in messages)


@dataclass(slots=True)
class Chain:
    """A seed on its way through the rounds. ``draw`` distinguishes repeated chains of a seed."""

    seed: Seed
    draw: int
    instruction: str
    operators: tuple[str, ...] = ()
    events: list[GeneratedRow | Reject] = field(default_factory=list)


@dataclass(slots=True)
class _Trial:
    """One chain's attempt in one round; dropped as soon as a test fails."""

    chain: Chain
    operator: str
    round: int
    rewritten: str = ""


class EvolInstruct:
    """The method ``evol-instruct``."""

    Config = EvolInstructConfig

    def __init__(self, ctx: MethodContext[EvolInstructConfig]) -> None:
        self.config = ctx.config
        self.missing = ctx.missing
        self.seeds = self._shuffled(read_seeds(ctx.inputs["seeds"], ctx.config.map, ctx.warn))
        self.material = f"{len(self.seeds)} seeds"

    def known_questions(self) -> Iterable[str]:
        return (seed.instruction for seed in self.seeds)

    def metrics(self) -> Mapping[str, Any]:
        return {"seeds": len(self.seeds)}

    def draw(self, teacher: Teacher, number: int) -> Iterator[GeneratedRow | Reject]:
        """Take each seed through its rounds, in groups no larger than the rows still missing."""
        position = 0
        while position < len(self.seeds):
            size = self.config.batch_size(-(-self.missing() // self.config.rounds))
            for chain in self.evolve(teacher, self.seeds[position : position + size], number):
                yield from chain.events
            position += size

    def evolve(self, teacher: Teacher, seeds: Sequence[Seed], draw: int) -> list[Chain]:
        """Take seeds through all the rounds; return their chains with what came of them.

        Where a budget ends in a later round, what came of the earlier ones is returned.
        """
        chains = [Chain(seed, draw, seed.instruction) for seed in seeds]
        try:
            for number in range(1, self.config.rounds + 1):
                self._evolve_once(teacher, chains, number)
        except BudgetReachedError:
            if not any(chain.events for chain in chains):
                raise
        return chains

    def _evolve_once(self, teacher: Teacher, chains: Sequence[Chain], number: int) -> None:
        later = STEPS * len(chains) * (self.config.rounds - number)
        trials = [_Trial(chain, self._operator(chain, number), number) for chain in chains]
        trials = self._rewrite(teacher, trials, later + 2 * len(trials))
        trials = self._judge(teacher, trials, later + len(trials))
        self._answer(teacher, trials, later)

    def _rewrite(self, teacher: Teacher, trials: Sequence[_Trial], after: int) -> list[_Trial]:
        asked = [
            self._request(teacher, trial, "rewrite",
                          rewrite_messages(trial.operator, trial.chain.instruction),
                          schema=REWRITE_SCHEMA)
            for trial in trials
        ]  # fmt: skip
        kept = []
        for trial, reply in _answered(
            trials, teacher.ask(_note(trials, "rewriting"), asked, after)
        ):
            text = read_field(reply.text, "instruction", str)
            if text is None:
                cut = "truncated" if reply.truncated else "malformed"
                _reject(trial, cut, reply.text, without_answer(reply))
                continue
            trial.rewritten = text.strip()
            if reason := reject_rewrite(trial.chain.instruction, trial.rewritten):
                _reject(trial, reason, trial.rewritten)
            else:
                kept.append(trial)
        return kept

    def _judge(self, teacher: Teacher, trials: Sequence[_Trial], after: int) -> list[_Trial]:
        asked = [
            self._request(teacher, trial, "judge",
                          judge_messages(trial.chain.instruction, trial.rewritten),
                          schema=JUDGE_SCHEMA, greedy=True)
            for trial in trials
        ]  # fmt: skip
        kept = []
        replies = teacher.ask_verdicts(_note(trials, "judging"), asked, after)
        for trial, reply in _answered(trials, replies):
            equal = read_field(reply.text, "equal", bool)
            if equal is None:
                _reject(trial, "malformed judgment", reply.text, without_answer(reply))
            elif equal:
                _reject(trial, "no information gain", trial.rewritten)
            else:
                kept.append(trial)
        return kept

    def _answer(self, teacher: Teacher, trials: Sequence[_Trial], after: int) -> None:
        asked = [self._request(teacher, trial, "answer", _conversation(trial)) for trial in trials]
        replies = teacher.ask(_note(trials, "answering"), asked, after)
        for trial, reply in _answered(trials, replies):
            answer = reply.text.strip()
            reason = "truncated" if reply.truncated else reject_answer(answer, trial.rewritten)
            if reason:
                _reject(trial, reason, answer, without_answer(reply))
                continue
            chain = trial.chain
            chain.instruction = trial.rewritten
            chain.operators = (*chain.operators, trial.operator)
            chain.events.append(_row(trial, answer, reply.reasoning))

    def _request(
        self, teacher: Teacher, trial: _Trial, purpose: str, messages: Messages, **how: Any
    ) -> ChatRequest:
        return teacher.request(
            messages,
            seed=self._number(trial.chain, trial.round, purpose),
            draw=trial.chain.draw,
            shared=0 if purpose == "answer" else len(messages) - 1,  # the worked examples
            **how,
        )

    def _operator(self, chain: Chain, number: int) -> str:
        names = list(OPERATORS)
        return names[self._number(chain, number, "operator") % len(names)]

    def _number(self, chain: Chain, number: int, purpose: str) -> int:
        return draw_number(self.config.random_seed, chain.seed.digest, chain.draw, number, purpose)

    def _shuffled(self, seeds: list[Seed]) -> list[Seed]:
        """Order seeds at random, such that a seed added later leaves the others in order."""
        number = self.config.random_seed
        return sorted(
            seeds, key=lambda item: (draw_number(number, item.digest, "order"), item.digest)
        )


def _answered(
    trials: Sequence[_Trial], replies: Sequence[ChatReply]
) -> Iterator[tuple[_Trial, ChatReply]]:
    """Pair each trial with its reply; reject those that got none."""
    for trial, reply in zip(trials, replies, strict=True):
        if reply.problem is None:
            yield trial, reply
        else:
            text = trial.rewritten or trial.chain.instruction
            _reject(trial, reply.problem, text, reply.detail)


def _reject(trial: _Trial, reason: str, text: str, detail: str = "") -> None:
    seed = trial.chain.seed
    trial.chain.events.append(
        Reject(reason, text, seed.place, (seed.provenance,), trial.operator, trial.round, detail)
    )


def _row(trial: _Trial, answer: str, reasoning: str) -> GeneratedRow:
    chain = trial.chain
    return GeneratedRow(
        fields={"messages": [*_conversation(trial), {"role": "assistant", "content": answer}]},
        question=chain.instruction,
        made_from=(chain.seed.provenance,),
        operators=chain.operators,
        reasoning=reasoning,
    )


def _conversation(trial: _Trial) -> Messages:
    system = trial.chain.seed.system
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": trial.rewritten}]


def _note(trials: Sequence[_Trial], doing: str) -> str:
    return f"round {trials[0].round}: {doing}" if trials else doing
