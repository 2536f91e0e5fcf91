"""The protocol of generation methods: a config class, inputs, and passes that yield rows.

A method is a module of `llmpipe.stages.generate.methods`, found by name. It decides what to ask the
teacher and which replies become rows. `llmpipe.stages.generate.loop` handles what all methods
share: the count, the journal, duplicates, progress and the files.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar

from msgspec import Meta

from llmpipe.backends.spending import Budget
from llmpipe.contracts import Artifact, FieldPath, Finding, Input, RandomSeed, StageConfig
from llmpipe.formats.provenance import Provenance
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.teacher import TeacherConfig

PATIENCE = 200
"""Rejects in a row after which a stage gives up: at a yield of one row in 20, the chance that this
many fail by bad luck is 4 in 100,000."""

PROMPT = 1000
"""The tokens of a prompt in estimates: most prompts of the methods have fewer with short seeds."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests to a teacher, and the most tokens of all their prompts and replies."""

    requests: int
    prompts: int
    replies: int


class GenerateConfig(StageConfig, frozen=True, kw_only=True):
    """The fields that every method has. A method's config class adds its own."""

    method: str
    """The generation method, which determines the other fields."""
    teacher: TeacherConfig
    """The model that writes the rows."""
    count: Annotated[int, Meta(ge=1)]
    """The number of rows to generate: exactly as many pass every test, or the stage fails and says
    why."""
    allow_fewer: bool = False
    """Accept fewer than `count` rows, with a warning, if no more can be made."""
    patience: Annotated[int, Meta(ge=1)] = PATIENCE
    """Number of consecutive rejects after which the stage gives up, before it pays for more."""
    random_seed: RandomSeed = 0
    """Drives every random choice of the method, and the teacher's sampling."""
    budget: Budget | None = None
    """What the rows may cost. The stage stops before a request could exceed it."""

    def sources(self) -> Mapping[str, Input]:
        """Return the method's inputs by port; the teacher is added by the stage."""
        return {}

    def own_problems(self) -> Iterable[tuple[FieldPath, str]]:
        """List the method's fields that do not go together, as (field, message)."""
        return ()

    def review(self) -> Iterable[Finding]:
        """Check the config against the files that it names."""
        return ()

    def replies_per_row(self) -> float:
        """Return how many replies a row takes if nothing is rejected, for estimates."""
        return 1.0

    def batch_size(self, missing: int) -> int:
        """Return how many to ask about at once, where so many are missing.

        All of a batch is paid for, so it is no larger than `patience`. The batches of providers
        take up to a day each; there, one holds all that is missing.
        """
        size = missing if self.teacher.mode == "batch" else min(missing, self.patience)
        return max(self.teacher.concurrency, size)

    def traffic(self) -> Traffic:
        """Return what `count` rows take of the teacher if no reply is rejected.

        By default every prompt has `PROMPT` tokens, and every reply is at its longest.
        """
        requests = math.ceil(self.count * self.replies_per_row())
        return Traffic(requests, requests * PROMPT, requests * self.teacher.max_tokens)

    def requires(self) -> frozenset[str]:
        """Name what the teacher's endpoint must obey: fields of `Abilities`, such as ``system``."""
        return frozenset()

    def packages(self) -> tuple[str, ...]:
        """Name the packages that the method imports when it runs."""
        return ()


ConfigT = TypeVar("ConfigT", bound=GenerateConfig)


@dataclass(frozen=True, slots=True)
class GeneratedRow:
    """A row that passed the method's tests."""

    fields: Mapping[str, Any]
    """The row as it is written, without its provenance."""
    question: str
    """The question of the row: rows with the same question are duplicates."""
    made_from: tuple[Provenance, ...]
    """The source rows that it was made from."""
    operators: tuple[str, ...]
    """The steps that led to it, in order."""
    reasoning: str = ""
    """The teacher's reasoning before the answer; not part of the answer."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What else its provenance says: a judge's scores, for example."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A text that failed a test, and why."""

    reason: str
    text: str
    place: str
    """The source of the text, for messages: ``seeds.jsonl:3``."""
    made_from: tuple[Provenance, ...]
    operator: str
    round: int
    detail: str = ""
    """The endpoint's message, if there was one."""


@dataclass(frozen=True, slots=True)
class MethodContext(Generic[ConfigT]):
    """What a running method knows about its stage."""

    config: ConfigT
    inputs: Mapping[str, Artifact]
    missing: Callable[[], int]
    """Returns the number of rows still needed, so that a method does not request too many."""
    warn: Callable[[str], None]
    """Shows a warning to the user."""


class Method(Protocol):
    """A generation method. The loop makes one instance for a run."""

    Config: ClassVar[type[GenerateConfig]]
    """The method's config class: closed, with ``method`` pinned to the method's name."""
    material: str
    """A description of its inputs for messages, with their number: ``12 seeds``."""

    def __init__(self, ctx: MethodContext[Any]) -> None:
        """Read the inputs.

        Raises:
            StageError: an input cannot be used.
        """

    def draw(self, teacher: Teacher, number: int) -> Iterator[GeneratedRow | Reject]:
        """Yield the results of one pass over the material; the loop asks for pass 0, 1, and so on.

        The loop stops when it has enough rows, after a pass without any new one, or when too many
        in a row are rejected. A pass that yields nothing at all means that the material is used up.
        How many rows are missing may change the size of a batch, never the order or content of the
        results.
        """

    def known_questions(self) -> Iterable[str]:
        """Return the questions of the material itself: a row that repeats one is a duplicate."""

    def metrics(self) -> Mapping[str, Any]:
        """Return the method's own metrics."""
