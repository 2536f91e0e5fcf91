"""Paraphrase the question of each row; its answer stays.

The last question of a conversation is asked in other words, of a kind that is drawn for each row.
A paraphrase is rejected if it is nearly the same text, if it changes a number, a date or a
negation, if it loses code, a placeholder or an address, or if a judge says that it asks something
else. All other turns stay as they are.

As the rephrasing of MetaMath (Yu et al. 2023), whose paraphrases are checked by whether they are
answered the same; here a judge compares the questions. The parent of a row is the row that it was
made of, so that `format` never trains on a paraphrase of a held-out row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmpipe.contracts import FieldPath, Finding, Input
from llmpipe.formats import Conversation
from llmpipe.formats.first_rows import Named, absent, named_columns
from llmpipe.formats.leakage import normalize
from llmpipe.formats.mapping import ColumnMap
from llmpipe.retrieval.facts import facts_of
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.conversations import SourceConversation, read_conversations
from llmpipe.stages.generate.protocol import GenerateConfig, GeneratedRow, MethodContext, Reject
from llmpipe.stages.generate.replies import Messages, contains_prompt, excerpt, unusable
from llmpipe.stages.generate.text import draw_number, read_field
from llmpipe.stages.generate.verbatim import kept_parts
from llmpipe.words import plain_words

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply

Kind = Literal["words", "shorter", "formal", "casual", "request"]

_EXAMPLE = "How many boxes can I store in the basement for 3 weeks?"
KINDS: Mapping[Kind, tuple[str, str]] = {
    "words": (
        "Use other words and another order, at about the same length.",
        "For 3 weeks, what number of boxes may be kept in the basement?",
    ),
    "shorter": (
        "Say it as briefly as possible.",
        "Boxes allowed in the basement for 3 weeks?",
    ),
    "formal": (
        "Say it formally, as in a letter to an office.",
        "Could you please inform me how many boxes may be stored in the basement for 3 weeks?",
    ),
    "casual": (
        "Say it casually, as to a friend.",
        "Hey, so how many boxes can I put down in the basement for 3 weeks?",
    ),
    "request": (
        "Make a request of it that does not end with a question mark.",
        "Tell me how many boxes I can store in the basement for 3 weeks.",
    ),
}
"""How a question is paraphrased: the task, and an example."""

_TASK = (
    "Rewrite the question so that it asks for exactly the same in other words. {how} Keep every "
    "number, name, negation, code and placeholder. Do not answer it. Keep its language."
)
_SAME = (
    "Do these two questions ask for the same, so that one answer fits both?\n"
    "First: {first}\nSecond: {second}"
)
_JUDGED = (
    (_EXAMPLE, KINDS["words"][1], True),
    (_EXAMPLE, "How many boxes can I store in the attic for 3 weeks?", False),
)
_EXAMPLES = frozenset(normalize(text) for text in (_EXAMPLE, *(own for _, own in KINDS.values())))

LONGEST = 3.0
"""How many times as long as its question a paraphrase may be, beside `SPARE` characters."""
SPARE = 60

QUESTION_SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}},
    "required": ["question"],
    "additionalProperties": False,
}
SAME_SCHEMA = {
    "type": "object",
    "properties": {"same": {"type": "boolean"}},
    "required": ["same"],
    "additionalProperties": False,
}


class RewriteConfig(GenerateConfig, frozen=True, kw_only=True):
    """Paraphrase the questions of rows, whose answers stay."""

    method: Literal["rewrite"]
    """The method: the questions of rows in other words, with the same answers."""
    seeds: str
    """The rows: a file (JSONL, JSON or CSV), or a stage's records or dataset."""
    map: ColumnMap | None = None
    """The columns of a row to read; known formats need none."""
    kinds: Annotated[tuple[Kind, ...], Meta(min_length=1)] = (
        "words",
        "shorter",
        "formal",
        "casual",
        "request",
    )
    """The kinds of paraphrase. Each pass over the rows takes the next kind for each row."""
    max_similarity: Annotated[float, Meta(gt=0, le=1)] = 0.9
    """Similarity with its question from which a paraphrase is rejected: the share of words that
    both have in the same order."""
    judge: bool = True
    """Whether the teacher is asked if both questions ask for the same."""
    keep: tuple[str, ...] = ()
    """Columns of a row that its paraphrases get, such as the `group` of a `split`."""

    def sources(self) -> Mapping[str, Input]:
        return {"seeds": Input(("seeds",), self.seeds, ("records", "dataset"))}

    def own_problems(self) -> Iterable[tuple[FieldPath, str]]:
        if self.map and (problem := self.map.problem()):
            yield ("map",), problem
        for index, kind in enumerate(self.kinds):
            if kind in self.kinds[:index]:
                yield ("kinds", index), f"{kind!r} is listed twice"

    def replies_per_row(self) -> float:
        return 1 + self.judge

    def review(self) -> Iterable[Finding]:
        kept = [Named(("keep", i), name, required=False) for i, name in enumerate(self.keep)]
        return absent([self.seeds], [*named_columns(("map",), self.map), *kept])

    def packages(self) -> tuple[str, ...]:
        return ("regex",)


@dataclass(slots=True)
class _Trial:
    """A row whose question is paraphrased once."""

    source: SourceConversation
    question: str
    kind: Kind
    draw: int
    paraphrase: str = ""
    reasoning: str = ""

    def reject(self, reason: str, text: str, detail: str = "") -> Reject:
        made_from = (self.source.provenance,)
        return Reject(
            reason, excerpt(text), self.source.place, made_from, self.kind, self.draw + 1, detail
        )


class Rewrite:
    """The method ``rewrite``."""

    Config = RewriteConfig

    def __init__(self, ctx: MethodContext[RewriteConfig]) -> None:
        self.config = ctx.config
        self.missing = ctx.missing
        found = read_conversations(
            ctx.inputs["seeds"], ctx.config.map, ctx.warn, required=lambda c: bool(_question(c))
        )
        self.rows = sorted(found, key=lambda row: (self._number(row, 0, "order"), row.digest))
        self.material = f"{len(self.rows)} row{'s' * (len(self.rows) != 1)}"
        self._written: Counter[str] = Counter()

    def known_questions(self) -> Iterable[str]:
        return (_question(row.conversation) for row in self.rows)

    def metrics(self) -> Mapping[str, Any]:
        """Return the rows, and the paraphrases that were written of each kind."""
        return {"source_rows": len(self.rows), "written": dict(sorted(self._written.items()))}

    def draw(self, teacher: Teacher, number: int) -> Iterator[GeneratedRow | Reject]:
        """Paraphrase each row once, in groups no larger than the rows still missing."""
        rows = self.rows
        while rows:
            size = self.config.batch_size(self.missing())
            trials = [self._trial(row, number) for row in rows[:size]]
            kept: list[_Trial] = []
            for trial, reject in self._rewrite(teacher, trials):
                if reject:
                    yield reject
                else:
                    kept.append(trial)
            judged = self._judge(teacher, kept) if self.config.judge else ((t, None) for t in kept)
            for trial, reject in judged:
                yield reject or self._row(trial)
            rows = rows[size:]

    def _trial(self, row: SourceConversation, number: int) -> _Trial:
        kinds = self.config.kinds
        kind = kinds[(self._number(row, 0, "kind") + number) % len(kinds)]
        return _Trial(row, _question(row.conversation), kind, number)

    def _rewrite(
        self, teacher: Teacher, trials: Sequence[_Trial]
    ) -> Iterator[tuple[_Trial, Reject | None]]:
        """Have questions paraphrased; yield each with why it is rejected, or None."""
        asked = [_rewrite_messages(trial.kind, trial.question) for trial in trials]
        requests = [
            teacher.request(
                messages,
                seed=self._number(trial.source, trial.draw, "paraphrase"),
                draw=trial.draw,
                schema=QUESTION_SCHEMA,
                shared=len(messages) - 1,
            )
            for trial, messages in zip(trials, asked, strict=True)
        ]
        later = len(trials) if self.config.judge else 0
        replies = teacher.ask("paraphrasing", requests, after=later)
        for trial, messages, reply in zip(trials, asked, replies, strict=True):
            self._written[trial.kind] += 1
            yield trial, self._reject_paraphrase(trial, messages, reply)

    def _reject_paraphrase(
        self, trial: _Trial, messages: Messages, reply: ChatReply
    ) -> Reject | None:
        if problem := unusable(reply):
            return trial.reject(problem[0], reply.text, problem[1])
        text = read_field(reply.text, "question", str)
        if text is None:
            return trial.reject("truncated" if reply.truncated else "malformed", reply.text)
        trial.paraphrase, trial.reasoning = text.strip(), reply.reasoning
        found = reject_paraphrase(trial.question, trial.paraphrase, self.config.max_similarity)
        if found is None and contains_prompt(trial.paraphrase, messages):
            found = "repeats the prompt", ""
        return trial.reject(found[0], trial.paraphrase, found[1]) if found else None

    def _judge(
        self, teacher: Teacher, trials: Sequence[_Trial]
    ) -> Iterator[tuple[_Trial, Reject | None]]:
        """Ask whether each paraphrase asks for the same as its question."""
        requests = [
            teacher.request(
                messages := _same_messages(trial.question, trial.paraphrase),
                seed=self._number(trial.source, trial.draw, "judge"),
                draw=trial.draw,
                schema=SAME_SCHEMA,
                shared=len(messages) - 1,
                greedy=True,
            )
            for trial in trials
        ]
        replies = teacher.ask_verdicts("judging", requests, after=0)
        for trial, reply in zip(trials, replies, strict=True):
            same = None if reply.problem else read_field(reply.text, "same", bool)
            if same is None:
                reason = reply.problem or "malformed judgment"
                yield trial, trial.reject(reason, trial.paraphrase, reply.detail or reply.text)
            elif not same:
                yield trial, trial.reject("asks something else", trial.paraphrase)
            else:
                yield trial, None

    def _row(self, trial: _Trial) -> GeneratedRow:
        kept = {name: trial.source.columns[name]
                for name in self.config.keep if name in trial.source.columns}  # fmt: skip
        return GeneratedRow(
            fields={**kept, **_with_question(trial.source.conversation, trial.paraphrase)},
            question=trial.paraphrase,
            made_from=(trial.source.provenance,),
            operators=(trial.kind,),
            reasoning=trial.reasoning,
        )

    def _number(self, row: SourceConversation, draw: int, purpose: str) -> int:
        return draw_number(self.config.random_seed, row.digest, draw, purpose)


def reject_paraphrase(
    question: str, paraphrase: str, max_similarity: float
) -> tuple[str, str] | None:
    """Return why a paraphrase cannot stand for its question, with a detail; or None."""
    before, after = plain_words(question), plain_words(paraphrase)
    if not after:
        return "empty", ""
    if normalize(paraphrase) in _EXAMPLES:
        return "leaks the prompt", ""
    alike = SequenceMatcher(None, before, after, autojunk=False).ratio()
    if normalize(question) == normalize(paraphrase) or alike >= max_similarity:
        return "too similar", f"{alike:.2f}"
    if len(paraphrase) > LONGEST * len(question) + SPARE:
        return "too long a paraphrase", f"{len(paraphrase)} characters for {len(question)}"
    lost = Counter(kept_parts(question)) - Counter(kept_parts(paraphrase))
    if lost:
        return "loses code or a placeholder", next(iter(lost))
    first, second = facts_of(question), facts_of(paraphrase)
    if not (first.support(second) and second.support(first)):
        return "changes a number or a negation", ""
    return None


def _question(conversation: Conversation) -> str:
    """Return the last question, or an empty text if it has parts that are not text."""
    asked = conversation.prompt()
    return asked[-1].text.strip() if asked and isinstance(asked[-1].content, str) else ""


def _with_question(conversation: Conversation, question: str) -> dict[str, Any]:
    """Return the row of a conversation whose last question is another text."""
    last = max(i for i, turn in enumerate(conversation.turns) if turn.role == "user")
    turns = list(conversation.turns)
    turns[last] = msgspec.structs.replace(turns[last], content=question)
    return msgspec.structs.replace(conversation, turns=turns).write()


def _rewrite_messages(kind: Kind, question: str) -> Messages:
    how, example = KINDS[kind]
    return [
        {"role": "system", "content": _TASK.format(how=how)},
        {"role": "user", "content": f"Question: {_EXAMPLE}"},
        {"role": "assistant", "content": json.dumps({"question": example})},
        {"role": "user", "content": f"Question: {question}"},
    ]


def _same_messages(first: str, second: str) -> Messages:
    messages: Messages = []
    for a, b, same in _JUDGED:
        messages.append({"role": "user", "content": _SAME.format(first=a, second=b)})
        messages.append({"role": "assistant", "content": json.dumps({"same": same})})
    return [*messages, {"role": "user", "content": _SAME.format(first=first, second=second)}]
