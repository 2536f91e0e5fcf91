"""What a generation method is: a config class, its inputs, and passes that yield rows and rejects.

A method lives in `llmpipe.stages.generate.methods` and is found by name. It decides what to ask the
teacher and which replies become rows. Everything that methods share stays outside of it: the count,
the journal, duplicates, progress and the files (`llmpipe.stages.generate.loop`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, Protocol, TypeVar

from msgspec import Meta

from llmpipe.contracts import Artifact, FieldPath, Finding, Input, RandomSeed, StageConfig
from llmpipe.formats.provenance import Provenance
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.teacher import TeacherConfig


class GenerateConfig(StageConfig, frozen=True, kw_only=True):
    """The fields that every method has. A method's config class adds its own."""

    method: str
    """How new rows are made; each method has further fields."""
    teacher: TeacherConfig
    """The model that writes them."""
    count: Annotated[int, Meta(ge=1)]
    """Rows wanted."""
    random_seed: RandomSeed = 0
    """Drives every random choice of the method, and how the teacher samples."""

    def sources(self) -> Mapping[str, Input]:
        """Return the method's inputs by port; the teacher is added by the stage."""
        return {}

    def own_problems(self) -> Iterable[tuple[FieldPath, str]]:
        """List the method's fields that do not go together, as (field, message)."""
        return ()

    def review(self) -> Iterable[Finding]:
        """Check the config against the files that it names."""
        return ()

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
    """What the row asks: two rows that ask the same are duplicates."""
    made_from: tuple[Provenance, ...]
    """The source rows that it was made from."""
    operators: tuple[str, ...]
    """The steps that led to it, the last one last."""
    reasoning: str = ""
    """What the teacher thought before it answered; not part of the answer."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A text that failed a test, and why."""

    reason: str
    text: str
    place: str
    """What it was made from, for messages: ``seeds.jsonl:3``."""
    made_from: tuple[Provenance, ...]
    operator: str
    round: int
    detail: str = ""
    """The endpoint's message, if there was one."""


@dataclass(frozen=True, slots=True)
class MethodContext(Generic[ConfigT]):
    """What a running method knows of its stage."""

    config: ConfigT
    inputs: Mapping[str, Artifact]
    missing: Callable[[], int]
    """Returns how many rows are still wanted, so that no more is asked than can be used."""
    warn: Callable[[str], None]
    """Tells the user something that they should know."""


class Method(Protocol):
    """A generation method. The loop makes one instance for a run."""

    Config: ClassVar[type[GenerateConfig]]
    """The method's config class: closed, with ``method`` pinned to the method's name."""
    material: str
    """What it starts from, counted, for messages: ``12 seeds``."""

    def __init__(self, ctx: MethodContext[Any]) -> None:
        """Read the inputs.

        Raises:
            StageError: an input cannot be used.
        """

    def draw(self, teacher: Teacher, number: int) -> Iterator[GeneratedRow | Reject]:
        """Yield the results of one pass over the material; the loop asks for pass 0, 1, and so on.

        The loop stops when it has enough rows, or after a pass without any new one. How many rows
        are missing may change the size of a batch, never the order or content of the results.
        """

    def known_questions(self) -> Iterable[str]:
        """Return the questions of the material itself: a row that repeats one is a duplicate."""

    def metrics(self) -> Mapping[str, Any]:
        """Return the method's own metrics."""
