"""Self-Instruct: new tasks in the style of seed tasks, each with its own inputs and outputs.

As published by Wang et al. 2023. A prompt shows eight tasks, six of the seeds and two that the
teacher wrote before (as long as there are none, all eight are seeds), and asks for more. A new task
is kept if it passes the published tests and its ROUGE-L with every seed and every kept task is
below 0.7. The teacher then says whether the task is a classification. If it is, each instance is
written output first, so that the answers vary; otherwise input first. Rows have the columns
`instruction`, `input` and `output`.

What differs from the paper: the requests are conversations with worked examples, because teachers
are chat models now; the penalty on repeated tokens is not used; a row that asks the same as another
is a duplicate, whatever its output.

The parents of a row are the seeds that the prompt of its task showed, six to eight. `format` drops
a row if one of them is held out, so keep the rows for evaluation out of the seeds.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmpipe.contracts import Finding, Input
from llmpipe.errors import StageError
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.formats.provenance import Provenance
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.methods.self_instruct.filters import (
    BLOCKED_WORDS,
    Instance,
    read_instances,
    read_tasks,
    reject_instance,
    reject_task,
)
from llmpipe.stages.generate.methods.self_instruct.prompts import (
    CLASSIFICATION_SCHEMA,
    NEW_TASKS,
    TASKS_SCHEMA,
    classification_messages,
    instance_messages,
    instances_schema,
    task_messages,
)
from llmpipe.stages.generate.methods.self_instruct.similarity import TaskPool
from llmpipe.stages.generate.protocol import GenerateConfig, GeneratedRow, MethodContext, Reject
from llmpipe.stages.generate.replies import without_answer
from llmpipe.stages.generate.seeds import Seed, SeedMap, read_seeds
from llmpipe.stages.generate.text import draw_number, read_field

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply

Verdict = Literal["classification", "other"]


class TaskMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The columns of a seed row to use. Its inputs and outputs, if it has any, are not used."""

    instruction: str
    """Column with the task."""


class SelfInstructConfig(GenerateConfig, frozen=True, kw_only=True):
    """Write new tasks in the style of the seeds, with inputs and outputs."""

    method: Literal["self-instruct"]
    """The method: new tasks in the style of the seeds, then inputs and outputs for them."""
    seeds: str
    """Tasks written by people: a file (JSONL, JSON or CSV), or a stage's records or dataset."""
    map: TaskMap | None = None
    """The columns of a seed row to use; a column `instruction` and known formats need none."""
    human_examples: Annotated[int, Meta(ge=1, le=64)] = 6
    """Number of seed tasks in a prompt."""
    generated_examples: Annotated[int, Meta(ge=0, le=64)] = 2
    """Number of generated tasks in a prompt; seeds take their place until there are enough."""
    prompts_per_batch: Annotated[int, Meta(ge=1, le=256)] = 5
    """Prompts sent before their tasks can appear in other prompts. More are faster for a teacher
    with a higher `concurrency`."""
    max_similarity: Annotated[float, Meta(gt=0, le=1)] = 0.7
    """ROUGE-L with another task from which a new task is rejected."""
    max_instances: Annotated[int, Meta(ge=1, le=32)] = 5
    """Maximum number of rows from one task."""
    blocked_words: tuple[str, ...] = BLOCKED_WORDS
    """Words that a task must not contain, because text alone cannot do it."""

    def sources(self) -> Mapping[str, Input]:
        return {"seeds": Input(("seeds",), self.seeds, ("records", "dataset"))}

    def replies_per_row(self) -> float:
        return 2.5  # a share of a prompt for new tasks, its classification, its instances

    def review(self) -> Iterable[Finding]:
        return absent([self.seeds], named_columns(("map",), self.map))

    def packages(self) -> tuple[str, ...]:
        return ("regex",)  # words in any script, for ROUGE-L


@dataclass(frozen=True, slots=True)
class _Prompt:
    """One request for new tasks, with the seeds that it shows."""

    number: int
    shown: tuple[str, ...]
    seeds: tuple[Seed, ...]

    @property
    def made_from(self) -> tuple[Provenance, ...]:
        return tuple(seed.provenance for seed in self.seeds)

    def reject(self, reason: str, text: str, step: str, detail: str = "") -> Reject:
        place = f"task prompt {self.number}"
        return Reject(reason, text, place, self.made_from, step, self.number, detail)


@dataclass(frozen=True, slots=True)
class _Task:
    """A new task and the prompt that gave it."""

    text: str
    prompt: _Prompt
    classification: bool = False

    @property
    def step(self) -> str:
        """Return how its instances are written."""
        return "output-first" if self.classification else "input-first"


class SelfInstruct:
    """The method ``self-instruct``."""

    Config = SelfInstructConfig

    def __init__(self, ctx: MethodContext[SelfInstructConfig]) -> None:
        config = ctx.config
        self.config = config
        self.missing = ctx.missing
        columns = SeedMap(user=config.map.instruction) if config.map else None
        source = ctx.inputs["seeds"]
        found = read_seeds(source, columns, ctx.warn, instruction_only=True)
        self.seeds = sorted(found, key=lambda seed: seed.digest)
        self.shown = config.human_examples + config.generated_examples
        if len(self.seeds) < self.shown:
            raise StageError(
                f"{source.label} has {len(self.seeds)} tasks; a prompt shows {self.shown}",
                hint="add tasks, or lower human_examples and generated_examples",
            )
        self.material = f"{len(self.seeds)} seed tasks"
        self.pool = TaskPool()
        for seed in self.seeds:
            self.pool.add(seed.instruction)
        self.generated: list[str] = []
        self.prompts = 0

    def known_questions(self) -> Iterable[str]:
        return (seed.instruction for seed in self.seeds)

    def metrics(self) -> Mapping[str, Any]:
        return {"seeds": len(self.seeds), "prompts": self.prompts, "tasks": len(self.generated)}

    def draw(self, teacher: Teacher, number: int) -> Iterator[GeneratedRow | Reject]:
        """Send as many prompts as it takes to show each seed about once, batch after batch."""
        wanted = -(-len(self.seeds) // self.config.human_examples)
        for _ in range(0, wanted, self.config.prompts_per_batch):
            yield from self._batch(teacher)

    def _batch(self, teacher: Teacher) -> Iterator[GeneratedRow | Reject]:
        """Have new tasks written, then instances of them, of no more tasks than are needed."""
        tasks: list[_Task] = []
        for event in self._new_tasks(teacher):
            if isinstance(event, Reject):
                yield event
            else:
                tasks.append(event)
        while tasks:
            size = self.config.batch_size(self.missing() // self.config.max_instances)
            yield from self._instances(teacher, tasks[:size])
            tasks = tasks[size:]

    def _new_tasks(self, teacher: Teacher) -> Iterator[_Task | Reject]:
        """Send a batch of prompts; yield the tasks that are new, which enter the pool."""
        prompts = [self._next_prompt() for _ in range(self.config.prompts_per_batch)]
        requests = [
            teacher.request(
                task_messages(prompt.shown),
                seed=draw_number(self.config.random_seed, prompt.number, "tasks"),
                schema=TASKS_SCHEMA,
            )
            for prompt in prompts
        ]
        most = min(NEW_TASKS * len(prompts), self.missing())
        replies = teacher.ask("writing tasks", requests, after=2 * most)
        for prompt, reply in zip(prompts, replies, strict=True):
            texts = None if reply.problem else read_tasks(reply.text)
            if texts is None:
                yield _unusable(prompt, reply, "tasks")
            for text in (texts or ())[:NEW_TASKS]:
                reason, detail = self._judged(text)
                if reason:
                    yield prompt.reject(reason, text, "tasks", detail)
                else:
                    self.pool.add(text)
                    self.generated.append(text)
                    yield _Task(text, prompt)

    def _next_prompt(self) -> _Prompt:
        """Draw the tasks of the next prompt: generated ones as far as there are, else seeds."""
        self.prompts += 1
        chance = random.Random(draw_number(self.config.random_seed, self.prompts, "shown"))
        count = min(self.config.generated_examples, len(self.generated))
        generated = chance.sample(self.generated, count)
        seeds = chance.sample(self.seeds, self.shown - count)
        shown = [*generated, *(" ".join(seed.instruction.split()) for seed in seeds)]
        chance.shuffle(shown)
        return _Prompt(self.prompts, tuple(shown), tuple(seeds))

    def _judged(self, text: str) -> tuple[str | None, str]:
        """Return why a new task is rejected, with a detail; or None."""
        if reason := reject_task(text, self.config.blocked_words):
            return reason, ""
        nearest = self.pool.nearest(text, self.config.max_similarity)
        if nearest is None:
            return None, ""
        return "too similar", f"ROUGE-L {nearest[0]:.2f} with: {nearest[1]}"

    def _instances(
        self, teacher: Teacher, tasks: Sequence[_Task]
    ) -> Iterator[GeneratedRow | Reject]:
        """Classify tasks, have their instances written, and yield those that pass as rows."""
        classified: list[_Task] = []
        for event in self._classified(teacher, tasks):
            if isinstance(event, Reject):
                yield event
            else:
                classified.append(event)
        most = self.config.max_instances
        requests = [
            teacher.request(
                messages := instance_messages(
                    task.text, classification=task.classification, most=most
                ),
                seed=draw_number(self.config.random_seed, task.text, "instances"),
                schema=instances_schema(classification=task.classification, most=most),
                shared=len(messages) - 1,
                greedy=True,
            )
            for task in classified
        ]
        replies = teacher.ask("writing instances", requests, after=0)
        for task, reply in zip(classified, replies, strict=True):
            instances = [] if reply.problem else read_instances(reply.text)[:most]
            if not instances:
                yield _unusable(task.prompt, reply, task.step)
            for instance in instances:
                reason = reject_instance(instance, instances)
                if reason:
                    yield task.prompt.reject(reason, _text(task, instance), task.step)
                else:
                    yield _row(task, instance, reply.reasoning)

    def _classified(self, teacher: Teacher, tasks: Sequence[_Task]) -> Iterator[_Task | Reject]:
        requests = [
            teacher.request(
                messages := classification_messages(task.text),
                seed=draw_number(self.config.random_seed, task.text, "classification"),
                schema=CLASSIFICATION_SCHEMA,
                shared=len(messages) - 1,
                greedy=True,
            )
            for task in tasks
        ]
        replies = teacher.ask_verdicts("classifying tasks", requests, after=len(tasks))
        for task, reply in zip(tasks, replies, strict=True):
            answer = None if reply.problem else read_field(reply.text, "classification", bool)
            if answer is None:
                yield _unusable(task.prompt, reply, "classification", task.text)
            else:
                yield _Task(task.text, task.prompt, answer)


def _unusable(prompt: _Prompt, reply: ChatReply, step: str, text: str = "") -> Reject:
    """Reject a reply as a whole."""
    if reply.problem:
        return prompt.reject(reply.problem, text, step, reply.detail)
    reason = "truncated" if reply.truncated else "malformed"
    return prompt.reject(reason, reply.text, step, without_answer(reply))


def _row(task: _Task, instance: Instance, reasoning: str) -> GeneratedRow:
    return GeneratedRow(
        fields={
            "instruction": task.text,
            "input": instance.input,
            "output": instance.output,
        },
        question=_text(task, instance),
        made_from=task.prompt.made_from,
        operators=(task.step,),
        reasoning=reasoning,
    )


def _text(task: _Task, instance: Instance) -> str:
    return f"{task.text}\n{instance.input}"
