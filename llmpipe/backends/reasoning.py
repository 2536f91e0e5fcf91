"""Part what a model thinks from what it answers: one way for every engine, whole or in pieces.

A reasoning model writes ``<think>…</think>`` before its answer, or its chat template opens the tag
and the model only closes it. Engines treat that differently: llama.cpp moves the text to
``reasoning_content`` for the templates that it recognises and strips the answer; transformers does
nothing. So raw text is taken from both, and parted here.

Reasoning stands before the answer. Tags amid an answer are part of it: it may speak of them.
Not covered: reasoning without tags of its own (Granite's "Here is my thought process:") and the
channels of gpt-oss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Tags:
    """What stands around a model's reasoning."""

    start: str
    end: str


TAGS = (
    Tags("<think>", "</think>"),
    Tags("<thinking>", "</thinking>"),
    Tags("<thought>", "</thought>"),
    Tags("<reasoning>", "</reasoning>"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<mm:think>", "</mm:think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Tags("<|inner_prefix|>", "<|inner_suffix|>"),
    Tags("<|channel>thought", "<channel|>"),
)
"""The tags that are known; no start is the beginning of another one."""

TAG_TEXTS = tuple(text for tags in TAGS for text in (tags.start, tags.end))
"""All of them: where one is a special token of a model, it has to be kept in the text."""

REPLACEMENT = "\ufffd"
"""What stands for bytes that are no character. For half of one only some engines write it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model wrote: the answer, without space around it, and its reasoning apart."""

    answer: str
    reasoning: str = ""
    unfinished: bool = False
    """Whether the text ends inside the reasoning, so that there is no answer."""
    truncated: bool = False
    """Whether it ends because there was no room for more, not because the model ended it."""


class _Place(Enum):
    BEFORE = auto()
    REASONING = auto()
    ANSWER = auto()


class Parter:
    """Parts a text that comes in pieces. The pieces' borders change nothing.

    `feed` gives stretches of text with whether they are reasoning. What may yet become a tag is
    held back, and white space before the answer is dropped. `close` gives what was held back.
    """

    def __init__(self, opened: Tags | None = None) -> None:
        """Begin before the answer, or inside reasoning that the prompt has ``opened``."""
        self._tags = opened
        self._place = _Place.REASONING if opened else _Place.BEFORE
        self._held = ""

    @property
    def reasoning(self) -> bool:
        """Whether the text so far ends inside reasoning."""
        return self._place is _Place.REASONING

    @property
    def reasoned(self) -> bool:
        """Whether reasoning has ended."""
        return self._tags is not None and not self.reasoning

    @property
    def answering(self) -> bool:
        """Whether the answer has begun, or is what comes next."""
        return self.reasoned or self._place is _Place.ANSWER

    def feed(self, piece: str) -> Iterator[tuple[str, bool]]:
        """Take the next piece; give the text that is certain, and whether it is reasoning."""
        self._held += piece
        moved = True
        while moved:
            if self._place is _Place.BEFORE:
                moved = self._begin()
            elif self._place is _Place.REASONING:
                text, moved = self._until_end()
                if text:
                    yield text, True
            else:
                if self._held:
                    yield self._held, False
                self._held, moved = "", False

    def close(self) -> Iterator[tuple[str, bool]]:
        """End the text; give what was held back."""
        held = self._held if self.reasoning else self._held.lstrip()
        self._held = ""
        if held:
            yield held, self.reasoning

    def _begin(self) -> bool:
        """See whether reasoning or the answer begins; False where more has to be known."""
        text = self._held.lstrip()
        for tags in TAGS:
            if text.startswith(tags.start):
                self._tags, self._place = tags, _Place.REASONING
                self._held = text.removeprefix(tags.start)
                return True
        if any(tags.start.startswith(text) for tags in TAGS):  # no text at all, too
            return False
        self._held, self._place = text, _Place.ANSWER
        return True

    def _until_end(self) -> tuple[str, bool]:
        """Take reasoning up to its end; the second value says whether the end was there."""
        assert self._tags is not None
        end = self._tags.end
        text, found, rest = self._held.partition(end)
        if found:
            self._held, self._place = rest, _Place.BEFORE
            return text, True
        begun = next((n for n in range(len(end) - 1, 0, -1) if text.endswith(end[:n])), 0)
        self._held = text[len(text) - begun :]
        return text[: len(text) - begun], False


def part(text: str, opened: Tags | None = None, *, truncated: bool = False) -> Reply:
    """Part a whole text; ``opened`` is the tag that its prompt ends in, if any."""
    parter = Parter(opened)
    stretches = [*parter.feed(text), *parter.close()]
    return reply_of(
        answer="".join(text for text, thought in stretches if not thought),
        reasoning="".join(text for text, thought in stretches if thought),
        unfinished=parter.reasoning,
        truncated=truncated,
    )


def reply_of(
    answer: str, reasoning: str, *, unfinished: bool = False, truncated: bool = False
) -> Reply:
    """Make a reply of parted texts: without space around them, or a character cut at the end."""
    if truncated:
        answer, reasoning = answer.rstrip(REPLACEMENT), reasoning.rstrip(REPLACEMENT)
    return Reply(answer.strip(), reasoning.strip(), unfinished, truncated)


def part_unseen(text: str, *, truncated: bool = False) -> Reply:
    """Part a text whose prompt is not known, such as an endpoint's reply or a row of a data set.

    A closing tag before any opening one shows that the prompt had opened it.
    """
    return part(text, _closed_first(text), truncated=truncated)


def opened_by(prompt: str, question: str = "") -> Tags | None:
    """Find the tag that a prompt leaves open, so that the answer begins inside reasoning.

    ``question`` is the last message in it; it, and what stands before it, may speak of tags.
    """
    last = next((tags for tags in TAGS if prompt.rstrip().endswith(tags.start)), None)
    said = question.strip()
    if last or not said or said not in prompt:
        return last
    tail = prompt.rpartition(said)[2]
    found = max(TAGS, key=lambda tags: tail.rfind(tags.start))
    begun = tail.rfind(found.start)
    return found if begun >= 0 and found.end not in tail[begun:] else None


def may_reason(template: str) -> bool:
    """Say whether a chat template knows of reasoning: whether a tag stands in it."""
    return any(text in template for text in TAG_TEXTS)


def _closed_first(text: str) -> Tags | None:
    ends = [(at, tags) for tags in TAGS if (at := text.find(tags.end)) >= 0]
    if not ends:
        return None
    at, tags = min(ends, key=lambda found: found[0])
    return None if tags.start in text[:at] else tags
