"""Questions and answers about documents, each with the quote that proves it.

The teacher is shown a passage and writes a quote and a question that it answers. The quote must
stand in the passage word for word, and its offsets are kept. The answer is the quote, a part of it
(`answers: span`), or in the teacher's words if the passage supports them (`answers: free`). A
question that only makes sense beside the passage ("in this text") is rejected. With `unanswerable`,
some rows ask another passage's question, which the passage shown does not answer: it holds neither
the quote nor the answer.

As in PAQ (Lewis et al. 2021: passages, answers from them, questions for the answers, a filter) and
SQuAD 2.0 (Rajpurkar et al. 2018: questions without an answer in the passage). What differs: one
request asks for all, the filter compares texts instead of asking a reader, and nothing checks that
the quote answers the question in meaning.

Rows have `messages` for `format`; `question`, `answer`, `answerable` and `documents` as
`evaluate_retrieval` and the calibration of `rag` read them; and the passage, its document and the
offsets. The parents of a row are its passage and its document. Not covered: questions that take
several passages to answer.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from llmpipe.contracts import FieldPath, Input
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.methods.qa.filters import Grounded, Item, answers, ground, read_items
from llmpipe.stages.generate.methods.qa.passages import Passage, read_passages
from llmpipe.stages.generate.methods.qa.prompts import Answers, items_schema, qa_messages
from llmpipe.stages.generate.methods.qa.rows import row_of
from llmpipe.stages.generate.protocol import GenerateConfig, GeneratedRow, MethodContext, Reject
from llmpipe.stages.generate.replies import Messages, excerpt, unusable
from llmpipe.stages.generate.text import draw_number

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply

PARTNERS = 8
"""Passages that are tried as the one that does not answer a question."""


class QaConfig(GenerateConfig, frozen=True, kw_only=True):
    """Write questions about documents, and answers that quote them."""

    method: Literal["qa"]
    """The method: questions about passages, with answers that quote them."""
    passages: str
    """What to ask about: a chunk stage, or an ingest stage, whose documents are cut by section."""
    outside: str | None = None
    """A chunk or ingest stage whose documents are not among `passages`: the unanswerable questions
    are about them. Without it, they are about other passages of `passages`."""
    unanswerable: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Share of the requests whose questions are put beside a passage that does not answer them.
    Needs `prompt: passage`."""
    questions_per_passage: Annotated[int, Meta(ge=1, le=16)] = 3
    """The most questions that one request asks for. Passages are used again until there are
    `count` rows."""
    passage_length: Annotated[int, Meta(ge=100, le=100_000)] = 1200
    """Characters of a passage, at most, where `passages` is an ingest stage. A sentence is never
    cut."""
    answers: Answers = "quote"
    """What an answer is: the `quote` itself; a `span` of it that the teacher copies; or `free`, in
    the teacher's words, which the passage must support as a source of `rag` does."""
    prompt: Literal["question", "passage"] = "question"
    """What `messages` ask: the `question` alone, or the question below the `passage`, in the words
    in which a `rag` stage asks its generator."""

    def sources(self) -> Mapping[str, Input]:
        kinds: tuple[Any, ...] = ("chunks", "documents")
        outside = {"outside": Input(("outside",), self.outside, kinds)} if self.outside else {}
        return {"passages": Input(("passages",), self.passages, kinds), **outside}

    def own_problems(self) -> Iterable[tuple[FieldPath, str]]:
        if self.unanswerable and self.prompt != "passage":
            yield (
                ("unanswerable",),
                "needs `prompt: passage`: without its passage, every question can be answered",
            )
        if self.outside and not self.unanswerable:
            yield ("outside",), "has no effect without `unanswerable`"

    def replies_per_row(self) -> float:
        return 1 / self.questions_per_passage

    def packages(self) -> tuple[str, ...]:
        return ("regex",)


@dataclass(frozen=True, slots=True)
class _Task:
    """One request: the passage that is asked about, and how the rows show it."""

    about: Passage
    draw: int
    beside: Passage | None = None
    """A passage to show with the questions of another set; only for `outside`."""
    unanswerable: bool = False


class Qa:
    """The method ``qa``."""

    Config = QaConfig

    def __init__(self, ctx: MethodContext[QaConfig]) -> None:
        config = ctx.config
        self.config = config
        self.missing = ctx.missing
        longest = config.passage_length
        self.passages = self._shuffled(read_passages(ctx.inputs["passages"], longest, ctx.warn))
        outside = ctx.inputs.get("outside")
        self.outside = self._shuffled(read_passages(outside, longest, ctx.warn)) if outside else ()
        self.material = f"{len(self.passages)} passage{'s' * (len(self.passages) != 1)}"
        self._of_document: dict[str, list[Passage]] = defaultdict(list)
        for passage in self.passages:
            self._of_document[passage.document.id].append(passage)
        self._tally: Counter[str] = Counter()

    def known_questions(self) -> Iterable[str]:
        return ()

    def metrics(self) -> Mapping[str, Any]:
        """Return the passages, the items that the teacher wrote, and what became of them."""
        written, grounded = self._tally["written"], self._tally["grounded"]
        return {
            "passages": len(self.passages),
            "documents": len(self._of_document),
            "questions_written": written,
            "questions_grounded": grounded,
            "grounded_share": round(grounded / written, 4) if written else 0.0,
        }

    def draw(self, teacher: Teacher, number: int) -> Iterator[GeneratedRow | Reject]:
        """Ask about each passage once, in groups no larger than the rows still missing."""
        tasks = list(self._tasks(number))
        while tasks:
            asked = -(-self.missing() // self.config.questions_per_passage)
            size = self.config.batch_size(asked)
            yield from self._ask(teacher, tasks[:size])
            tasks = tasks[size:]

    def _tasks(self, number: int) -> Iterator[_Task]:
        share = self.config.unanswerable
        for position, passage in enumerate(self.passages):
            if self._number(passage, number, "unanswerable") / 2**31 >= share:
                yield _Task(passage, number)
            elif self.outside:
                other = self.outside[position % len(self.outside)]
                yield _Task(other, number, beside=passage, unanswerable=True)
            else:
                yield _Task(passage, number, unanswerable=True)

    def _ask(self, teacher: Teacher, tasks: Sequence[_Task]) -> Iterator[GeneratedRow | Reject]:
        most = self.config.questions_per_passage
        asked = [self._messages(task) for task in tasks]
        requests = [
            teacher.request(
                messages,
                seed=self._number(task.about, task.draw, "items"),
                draw=task.draw,
                schema=items_schema(most, task.about.sentences, self.config.answers),
                shared=len(messages) - 1,
            )
            for task, messages in zip(tasks, asked, strict=True)
        ]
        replies = teacher.ask("asking about passages", requests, after=0)
        for task, reply in zip(tasks, replies, strict=True):
            items, reject = self._read(task, reply)
            if reject:
                yield reject
            for index, item in enumerate(items[:most]):
                self._tally["written"] += 1
                yield self._judged(task, item, index, reply.reasoning)

    def _messages(self, task: _Task) -> Messages:
        return qa_messages(
            task.about.heading,
            task.about.text,
            count=self.config.questions_per_passage,
            answers=self.config.answers,
        )

    def _read(self, task: _Task, reply: ChatReply) -> tuple[list[Item], Reject | None]:
        """Return the complete items of a reply, and a reject if something of it is lost."""
        if problem := unusable(reply):
            return [], _reject(task, problem[0], excerpt(reply.text), problem[1])
        items, is_json = read_items(reply.text, self.config.answers)
        if reply.truncated:
            return items, _reject(task, "truncated", excerpt(reply.text))
        return items, None if is_json else _reject(task, "malformed", excerpt(reply.text))

    def _judged(self, task: _Task, item: Item, index: int, reasoning: str) -> GeneratedRow | Reject:
        grounded = ground(item, task.about, self.config.answers)
        if isinstance(grounded, str):
            detail = f"answer: {item.answer}; quote: {item.quote}"
            return _reject(task, grounded, excerpt(item.question), excerpt(detail))
        self._tally["grounded"] += 1
        if not task.unanswerable:
            return self._row(grounded, task.about, task.about, reasoning)
        beside = self._beside(task, grounded, index)
        if beside is None:
            return _reject(task, "no passage without the answer", grounded.question)
        return self._row(grounded, task.about, beside, reasoning, outside=bool(self.outside))

    def _row(
        self,
        grounded: Grounded,
        about: Passage,
        shown: Passage,
        reasoning: str,
        *,
        outside: bool = False,
    ) -> GeneratedRow:
        sources = (about,) if about is shown else (about, shown)
        with_passage = self.config.prompt == "passage"
        return GeneratedRow(
            fields=row_of(grounded, about, shown, with_passage=with_passage, outside=outside),
            question=grounded.question,
            made_from=tuple(passage.provenance for passage in sources),
            operators=("answerable" if about is shown else "unanswerable",),
            reasoning=reasoning,
        )

    def _beside(self, task: _Task, grounded: Grounded, index: int) -> Passage | None:
        """Return a passage that does not answer the question, of the same document if possible."""
        near = [] if self.outside else self._of_document[task.about.document.id]
        chance = random.Random(self._number(task.about, task.draw, f"beside {index}"))
        candidates = [task.beside] if task.beside else []
        candidates += chance.sample(near, min(len(near), PARTNERS))
        candidates += chance.sample(self.passages, min(len(self.passages), PARTNERS))
        quote = grounded.quote.of(task.about.text)
        for passage in candidates:
            if passage is not task.about and not answers(passage, quote, grounded.answer):
                return passage
        return None

    def _number(self, passage: Passage, draw: int, purpose: str) -> int:
        return draw_number(self.config.random_seed, passage.id, draw, purpose)

    def _shuffled(self, passages: Sequence[Passage]) -> tuple[Passage, ...]:
        """Order passages at random, such that one added later leaves the others in order."""
        return tuple(sorted(passages, key=lambda each: (self._number(each, 0, "order"), each.id)))


def _reject(task: _Task, reason: str, text: str, detail: str = "") -> Reject:
    return Reject(
        reason=reason,
        text=text,
        place=task.about.place,
        made_from=(task.about.provenance,),
        operator="unanswerable" if task.unanswerable else "answerable",
        round=task.draw + 1,
        detail=detail,
    )
