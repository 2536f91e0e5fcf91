"""Textbook: lessons and exercises over a grid of topics, audiences and styles, judged by value.

In the manner of Gunasekar et al. 2023 ("Textbooks Are All You Need") and Li et al. 2023 (phi-1.5),
whose prompts are not published. The grid of topic x audience x style, which makes the prompts
different, is that of Cosmopedia (Ben Allal et al. 2024); the judge of educational value, with a
scale from 0 to 5 and a threshold of 3, follows FineWeb-Edu (Penedo et al. 2024), which trains a
classifier on such scores. Here the judge itself decides, by the mean of repeated scores.

The cells of the grid are drawn in a fixed random order, without being listed: the first rows are
spread over all of it, however large it is. When all cells have been drawn, each is drawn again with
another seed.

Lessons are rows with a column `text`; exercises are conversations of a question and its answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmpipe.contracts import FieldPath, Finding, Input
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.formats.leakage import normalize
from llmpipe.stages.generate.answers import reject_answer
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.judge import Judge, Judging, Rating
from llmpipe.stages.generate.methods.textbook.prompts import (
    AUDIENCES,
    EDUCATIONAL_VALUE,
    EXERCISE_SCHEMA,
    STYLES,
    Form,
    writing_messages,
)
from llmpipe.stages.generate.methods.textbook.topics import Topic, draw_topics, read_topics
from llmpipe.stages.generate.order import shuffled
from llmpipe.stages.generate.protocol import GenerateConfig, GeneratedRow, MethodContext, Reject
from llmpipe.stages.generate.replies import without_answer
from llmpipe.stages.generate.text import draw_number, read_field

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply

MOST_AT_ONCE = 1024
"""Cells of one batch, at most."""


class TopicMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The column of `topic_rows` to use."""

    topic: str = "topic"
    """Column with the topic."""


class TextbookConfig(GenerateConfig, frozen=True, kw_only=True):
    """Write lessons or exercises over a grid of topics, audiences and styles."""

    method: Literal["textbook"]
    """The method: lessons or exercises over a grid of topics, audiences and styles."""
    form: Form = "lesson"
    """What is written: a `lesson` is one text; an `exercise` is a question with its answer."""
    topics: tuple[str, ...] | None = None
    """Topics, each a few words."""
    topic_rows: str | None = None
    """More topics: a file (JSONL, JSON or CSV), or a stage's records or dataset."""
    map: TopicMap | None = None
    """The column of `topic_rows` to use."""
    subject: str | None = None
    """A subject that the teacher lists topics of, such as `the physics of everyday life`."""
    subject_topics: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Number of topics that the teacher lists of `subject`."""
    audiences: tuple[str, ...] = AUDIENCES
    """Readers to write for."""
    styles: tuple[str, ...] | None = None
    """Styles of lessons or exercises; by default, styles that fit the `form`."""
    words: Annotated[int, Meta(ge=10, le=10_000)] = 300
    """Words that a text should have. `teacher.max_tokens` must leave room for them."""
    judge: Judge | None = EDUCATIONAL_VALUE
    """The test of a text's value, on a scale from 0 to 5; `null` for none."""

    def sources(self) -> Mapping[str, Input]:
        if self.topic_rows is None:
            return {}
        return {"topic_rows": Input(("topic_rows",), self.topic_rows, ("records", "dataset"))}

    def own_problems(self) -> Iterable[tuple[FieldPath, str]]:
        if not (self.topics or self.topic_rows or self.subject):
            yield ("topics",), "there is no topic: write topics, topic_rows or subject"
        if self.map and not self.topic_rows:
            yield ("map",), "names a column of topic_rows, which is missing"
        topics = self.topics or None  # none at all is said above, or there are others
        axes = {"topics": topics, "audiences": self.audiences, "styles": self.styles}
        for name, values in axes.items():
            if values is not None:
                yield from _problems_of_axis(name, values)
        if self.judge:
            for field, message in self.judge.problems(self.teacher.temperature):
                yield ("judge", field), message

    def replies_per_row(self) -> float:
        return 1 + (self.judge.repeats if self.judge else 0)

    def review(self) -> Iterable[Finding]:
        return absent([self.topic_rows], named_columns(("map",), self.map))


def _problems_of_axis(name: str, values: Sequence[str]) -> Iterator[tuple[FieldPath, str]]:
    if not values:
        yield (name,), "is empty, so the grid has no cell"
    for index, value in enumerate(values):
        if not value.strip():
            yield (name, index), "is blank"
        elif value in values[:index]:
            yield (name, index), f"repeats {value!r}"


@dataclass(frozen=True, slots=True)
class _Cell:
    """A topic for an audience in a style, in one pass."""

    topic: Topic
    audience: str
    style: str
    number: int

    def reject(self, step: str, reason: str, text: str, detail: str = "") -> Reject:
        place = self.topic.place or self.topic.text
        return Reject(reason, text, place, self.topic.made_from, step, self.number + 1, detail)


@dataclass(frozen=True, slots=True)
class _Text:
    """What was written for a cell: the row's columns, and the text that is judged."""

    cell: _Cell
    fields: Mapping[str, Any]
    question: str
    text: str
    reasoning: str


class Textbook:
    """The method ``textbook``."""

    Config = TextbookConfig

    def __init__(self, ctx: MethodContext[TextbookConfig]) -> None:
        config = self.config = ctx.config
        self.missing, self.warn = ctx.missing, ctx.warn
        self.styles = config.styles or STYLES[config.form]
        self.topics = [Topic(text) for text in config.topics or ()]
        if config.topic_rows:
            column = (config.map or TopicMap()).topic
            self._add(read_topics(ctx.inputs["topic_rows"], column, ctx.warn))
        self.judging = config.judge and Judging(config.judge, config.random_seed, ctx.warn)

    @property
    def cells(self) -> int:
        """The size of the grid."""
        return len(self.topics) * len(self.config.audiences) * len(self.styles)

    @property
    def material(self) -> str:
        """The grid, for messages."""
        return f"a grid of {self.cells} cells"

    def known_questions(self) -> Iterable[str]:
        return ()

    def metrics(self) -> Mapping[str, Any]:
        told: dict[str, Any] = {"topics": len(self.topics), "cells": self.cells}
        return told | ({"judge": self.judging.metrics()} if self.judging else {})

    def draw(self, teacher: Teacher, number: int) -> Iterator[GeneratedRow | Reject]:
        """Draw each cell of the grid once, in batches no larger than are missing."""
        config = self.config
        if config.subject and number == 0:
            self._add(
                draw_topics(
                    teacher, config.subject, config.subject_topics, config.random_seed, self.warn
                )
            )
        order = shuffled(self.cells, config.random_seed, number, "cells")
        while True:
            size = min(config.batch_size(self.missing()), MOST_AT_ONCE)
            batch = [self._cell(place, number) for place in islice(order, size)]
            if not batch:
                return
            yield from self._write(teacher, batch)

    def _add(self, topics: Sequence[Topic]) -> None:
        """Add topics that are not there yet."""
        known = {normalize(topic.text) for topic in self.topics}
        new = [topic for topic in topics if normalize(topic.text) not in known]
        if len(new) < len(topics):
            self.warn(f"topics that were listed already, not used: {len(topics) - len(new)}")
        self.topics += new

    def _cell(self, place: int, number: int) -> _Cell:
        place, style = divmod(place, len(self.styles))
        topic, audience = divmod(place, len(self.config.audiences))
        return _Cell(
            self.topics[topic], self.config.audiences[audience], self.styles[style], number
        )

    def _write(self, teacher: Teacher, cells: Sequence[_Cell]) -> Iterator[GeneratedRow | Reject]:
        """Have a batch written and judged; yield what comes of each cell, in their order."""
        config = self.config
        requests = [
            teacher.request(
                writing_messages(
                    config.form, cell.topic.text, cell.audience, cell.style, config.words
                ),
                seed=draw_number(
                    config.random_seed, cell.topic.text, cell.audience, cell.style, cell.number
                ),
                draw=cell.number,
                schema=EXERCISE_SCHEMA if config.form == "exercise" else None,
            )
            for cell in cells
        ]
        repeats = config.judge.repeats if config.judge else 0
        replies = teacher.ask(f"writing {config.form}s", requests, after=len(cells) * repeats)
        read = [self._read(cell, reply) for cell, reply in zip(cells, replies, strict=True)]
        texts = [each for each in read if isinstance(each, _Text)]
        if self.judging:
            ratings = iter(self.judging.rate(teacher, [text.text for text in texts]))
        else:
            ratings = iter(())
        for each in read:
            yield each if isinstance(each, Reject) else self._judged(each, next(ratings, None))

    def _read(self, cell: _Cell, reply: ChatReply) -> _Text | Reject:
        step = self.config.form
        if reply.problem:
            return cell.reject(step, reply.problem, "", reply.detail)
        if reply.truncated:
            return cell.reject(step, "truncated", reply.text, without_answer(reply))
        if step == "lesson":
            text = reply.text.strip()
            if reason := reject_answer(text, cell.topic.text):
                return cell.reject(step, reason, text, without_answer(reply))
            return _Text(cell, {"text": text}, text, text, reply.reasoning)
        question, answer = (read_field(reply.text, name, str) for name in ("question", "answer"))
        if question is None or answer is None or not question.strip():
            return cell.reject(step, "malformed", reply.text, without_answer(reply))
        question, answer = question.strip(), answer.strip()
        if reason := reject_answer(answer, question):
            return cell.reject(step, reason, answer)
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        told = f"Question: {question}\nAnswer: {answer}"
        return _Text(cell, {"messages": turns}, question, told, reply.reasoning)

    def _judged(self, written: _Text, rating: Rating | None) -> GeneratedRow | Reject:
        cell = written.cell
        details: dict[str, Any] = {
            "topic": cell.topic.text,
            "audience": cell.audience,
            "style": cell.style,
        }
        if self.judging and rating:
            if failed := self.judging.reject(rating):
                return cell.reject("judge", failed[0], written.text, failed[1])
            details["judge"] = rating.told(self.judging.judge)
        return GeneratedRow(
            fields=written.fields,
            question=written.question,
            made_from=cell.topic.made_from,
            operators=(self.config.form,),
            reasoning=written.reasoning,
            details=details,
        )
