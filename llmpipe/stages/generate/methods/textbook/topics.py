"""The topics of textbooks: of the spec, of rows, and drawn from the teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.formats.leakage import normalize
from llmpipe.formats.provenance import Provenance, read_provenance
from llmpipe.formats.records import read_rows
from llmpipe.formats.row import RowError, UnusableRowError, text_column
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.methods.textbook.prompts import TOPICS_SCHEMA, topic_messages
from llmpipe.stages.generate.text import draw_number, read_field

FRUITLESS = 3
"""Requests in a row without a new topic after which no more are asked for."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, with the row that it comes from, if there is one."""

    text: str
    made_from: tuple[Provenance, ...] = ()
    place: str = ""


def read_topics(source: Artifact, column: str, warn: Callable[[str], None]) -> list[Topic]:
    """Return the topics of a file in the order of their texts, each once.

    Raises:
        StageError: A row cannot be read (its line is named), or there is no topic.
    """
    topics: dict[str, Topic] = {}
    unused = 0
    for topic in _topics(source, column):
        key = normalize(topic.text)
        unused += not key or key in topics
        if key and (key not in topics or topic.text < topics[key].text):
            topics[key] = topic
    if unused:
        warn(f"{source.label}: rows with an empty or repeated topic, not used: {unused}")
    if not topics:
        raise StageError(f"{source.label} has no topic", hint=f"fill its column {column!r}")
    return [topics[key] for key in sorted(topics)]


def _topics(source: Artifact, column: str) -> Iterator[Topic]:
    for line, row in read_rows(source.path, source.label):
        place = f"{source.label}:{line}"
        try:
            yield Topic(text_column(row, column).strip(), (read_provenance(row),), place)
        except UnusableRowError:
            yield Topic("")
        except RowError as error:
            raise StageError(
                f"{place}: {error.message}", hint=error.hint or "name the column under map"
            ) from None


def draw_topics(
    teacher: Teacher, subject: str, wanted: int, random_seed: int, warn: Callable[[str], None]
) -> list[Topic]:
    """Have the teacher list topics of a subject, request after request, until there are enough.

    Raises:
        StageError: There is no topic.
    """
    found: dict[str, str] = {}
    number = fruitless = 0
    while len(found) < wanted and fruitless < FRUITLESS:
        request = teacher.request(
            topic_messages(subject, wanted - len(found), list(found.values())),
            seed=draw_number(random_seed, subject, number, "topics"),
            draw=number,
            schema=TOPICS_SCHEMA,
        )
        (reply,) = teacher.ask("listing topics", [request], after=0)
        before = len(found)
        for text in (None if reply.problem else read_field(reply.text, "topics", list)) or ():
            if isinstance(text, str) and text.strip() and len(found) < wanted:
                found.setdefault(normalize(text), " ".join(text.split()))
        fruitless = 0 if len(found) > before else fruitless + 1
        number += 1
        last = reply.problem or ("truncated" if reply.truncated else "nothing new")
    if not found:
        raise StageError(
            f"the teacher listed no topic of {subject!r} in {FRUITLESS} replies (last: {last})",
            hint="list topics in the spec, or use a larger teacher",
        )
    if len(found) < wanted:
        warn(
            f"subject: {len(found)} of {wanted} topics; then {FRUITLESS} replies in a row had no "
            f"new one (last: {last})"
        )
    return [Topic(text) for text in found.values()]
