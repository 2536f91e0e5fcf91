"""Orca: have prompts answered with explanations, under one of sixteen system messages.

As published by Mukherjee et al. 2023 ("Orca", explanation tuning). A row is a system message, a
query and the teacher's reply. The system message is drawn from those that fit the query's kind of
task, and each query meets another one in the next pass, until all that fit it are used. The kind is
a column of the seeds, or one for all of them.

`erase_prompt` is the prompt erasing of Mitra et al. 2023 ("Orca 2"): the teacher sees the strategy,
the row has a generic system message, so that the student learns to choose a strategy by itself. A
query then becomes one row at most. The provenance names the strategy either way.

What differs from the papers: the system messages ask for the same in other words. Orca 2's
hand-written strategies for each task are not published; the sixteen of Orca take their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from llmpipe.contracts import FieldPath, Finding, Input
from llmpipe.errors import StageError, did_you_mean
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.formats.leakage import normalize
from llmpipe.stages.generate.answers import reject_answer
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.methods.orca.strategies import BY_TASK, GENERIC, STRATEGIES, Task
from llmpipe.stages.generate.protocol import GenerateConfig, GeneratedRow, MethodContext, Reject
from llmpipe.stages.generate.replies import Messages, without_answer
from llmpipe.stages.generate.seeds import Seed, SeedMap, read_seeds
from llmpipe.stages.generate.text import draw_number

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply


class QueryMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The columns of a seed row to use. Its answers, if it has any, are not used."""

    user: str | None = None
    """Column with the query; known formats and a column `instruction` need none."""
    task: str | None = None
    """Column with the kind of task, or with a value that `tasks` translates into one."""


class OrcaConfig(GenerateConfig, frozen=True, kw_only=True):
    """Answer the seeds' prompts with explanations, as a system message asks."""

    method: Literal["orca"]
    """The method: prompts are answered under system messages that ask for explanations."""
    seeds: str
    """The queries: a file (JSONL, JSON or CSV), or a stage's records or dataset."""
    map: QueryMap | None = None
    """The columns of a seed row to use."""
    task: Task = "open"
    """The kind of task of all queries, or of those whose column has none."""
    tasks: dict[str, Task] | None = None
    """What the values of the column `map.task` mean, such as `{gsm8k: reasoning}`."""
    erase_prompt: bool = False
    """Whether a row has `student_system` instead of the system message that the teacher saw."""
    student_system: str = GENERIC
    """The system message of a row whose own is erased."""

    def sources(self) -> Mapping[str, Input]:
        return {"seeds": Input(("seeds",), self.seeds, ("records", "dataset"))}

    def own_problems(self) -> Iterable[tuple[FieldPath, str]]:
        if self.tasks is not None and not (self.map and self.map.task):
            yield ("tasks",), "translates the column that map.task names; map.task is missing"

    def review(self) -> Iterable[Finding]:
        return absent([self.seeds], named_columns(("map",), self.map, optional=("task",)))


@dataclass(frozen=True, slots=True)
class _Query:
    """A seed with its kind of task and its system messages in the order of use."""

    seed: Seed
    task: Task
    strategies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Trial:
    """A query under one system message."""

    query: _Query
    strategy: str
    number: int

    def reject(self, reason: str, text: str, detail: str = "") -> Reject:
        seed = self.query.seed
        return Reject(
            reason, text, seed.place, (seed.provenance,), self.strategy, self.number + 1, detail
        )


class Orca:
    """The method ``orca``."""

    Config = OrcaConfig

    def __init__(self, ctx: MethodContext[OrcaConfig]) -> None:
        config = self.config = ctx.config
        self.missing = ctx.missing
        user, task = (config.map.user, config.map.task) if config.map else (None, None)
        columns = SeedMap(user=user) if user else None
        seeds = read_seeds(ctx.inputs["seeds"], columns, ctx.warn, label=task)
        self.queries = [self._query(seed) for seed in _different(seeds, ctx)]
        number = config.random_seed
        self.queries.sort(key=lambda query: draw_number(number, query.seed.digest, "order"))
        self.material = f"{len(self.queries)} queries"
        self.answered: set[str] = set()

    def known_questions(self) -> Iterable[str]:
        return ()

    def metrics(self) -> Mapping[str, Any]:
        counts: dict[str, int] = {}
        for query in self.queries:
            counts[query.task] = counts.get(query.task, 0) + 1
        return {"seeds": len(self.queries), "tasks": dict(sorted(counts.items()))}

    def draw(self, teacher: Teacher, number: int) -> Iterator[GeneratedRow | Reject]:
        """Ask each query under its next system message, in batches no larger than are missing."""
        left = [
            _Trial(query, query.strategies[number], number)
            for query in self.queries
            if number < len(query.strategies) and query.seed.digest not in self.answered
        ]
        position = 0
        while position < len(left):
            size = self.config.batch_size(self.missing())
            yield from self._answer(teacher, left[position : position + size])
            position += size

    def _answer(
        self, teacher: Teacher, trials: Sequence[_Trial]
    ) -> Iterator[GeneratedRow | Reject]:
        requests = [
            teacher.request(
                messages := _conversation(STRATEGIES[trial.strategy], trial.query.seed.instruction),
                seed=draw_number(self.config.random_seed, trial.query.seed.digest, trial.strategy),
                shared=len(messages) - 1,
            )
            for trial in trials
        ]
        replies = teacher.ask("answering", requests, after=0)
        for trial, reply in zip(trials, replies, strict=True):
            yield self._judged(trial, reply)

    def _judged(self, trial: _Trial, reply: ChatReply) -> GeneratedRow | Reject:
        """Return the row of a reply, or why it is rejected."""
        query = trial.query.seed.instruction
        if reply.problem:
            return trial.reject(reply.problem, query, reply.detail)
        answer = reply.text.strip()
        reason = "truncated" if reply.truncated else reject_answer(answer, query)
        if reason:
            return trial.reject(reason, answer, without_answer(reply))
        erased = self.config.erase_prompt
        if erased:
            self.answered.add(trial.query.seed.digest)
        system = self.config.student_system if erased else STRATEGIES[trial.strategy]
        turns = [*_conversation(system, query), {"role": "assistant", "content": answer}]
        return GeneratedRow(
            fields={"messages": turns},
            question=f"{system}\n{query}",
            made_from=(trial.query.seed.provenance,),
            operators=(trial.strategy,),
            reasoning=reply.reasoning,
            details={"task": trial.query.task, **({"prompt_erased": True} if erased else {})},
        )

    def _query(self, seed: Seed) -> _Query:
        task = self._task(seed)
        number = self.config.random_seed
        order = sorted(BY_TASK[task], key=lambda name: draw_number(number, seed.digest, name))
        return _Query(seed, task, tuple(order))

    def _task(self, seed: Seed) -> Task:
        """Return the kind of task that a seed's column says."""
        if not seed.label:
            return self.config.task
        known: dict[str, Task] = {name: name for name in BY_TASK} | (self.config.tasks or {})
        if seed.label not in known:
            kinds = ", ".join(BY_TASK)
            raise StageError(
                f"{seed.place}: the kind of task is {seed.label!r}, which is not one of {kinds}",
                hint=did_you_mean(seed.label, known) or "say under tasks: what it means",
            )
        return known[seed.label]


def _different(seeds: Sequence[Seed], ctx: MethodContext[OrcaConfig]) -> Iterator[Seed]:
    """Yield the seeds with different queries; of equal ones, the same whatever the file's order."""
    seen: set[str] = set()
    systems = repeated = 0
    for seed in sorted(seeds, key=lambda seed: seed.digest):
        systems += bool(seed.system)
        key = normalize(seed.instruction)
        repeated += key in seen
        if key not in seen:
            yield seed
        seen.add(key)
    label = ctx.inputs["seeds"].label
    if repeated:
        ctx.warn(f"{label}: rows whose query is another's, not used: {repeated}")
    if systems:
        ctx.warn(f"{label}: system messages of rows, replaced by those of the method: {systems}")


def _conversation(system: str, query: str) -> Messages:
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": query}]
