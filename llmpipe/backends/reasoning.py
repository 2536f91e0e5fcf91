"""Separate a model's reasoning from its answer, the same way for every engine and for streams.

A reasoning model writes ``<think>…</think>`` before its answer, or its chat template opens the tag
and the model only closes it. Engines treat that differently: llama.cpp moves the text to
``reasoning_content`` for the templates that it recognizes and strips the answer; transformers does
nothing. llmpipe therefore takes raw text from both and separates it here.

Reasoning comes before the answer. Tags inside an answer belong to it, since it may talk about them.
Not covered: reasoning without tags (Granite's "Here is my thought process:") and the channels of
gpt-oss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Tags:
    """The tags around a model's reasoning."""

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
"""All known tags. No start tag is a prefix of another one."""

TAG_TEXTS = tuple(text for tags in TAGS for text in (tags.start, tags.end))
"""The texts of all tags. If one is a special token of a model, decoding must keep it."""

REPLACEMENT = "\ufffd"
"""The replacement for invalid bytes. Some engines write it for an incomplete last character."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply: the answer and the reasoning, both without surrounding whitespace."""

    answer: str
    reasoning: str = ""
    unfinished: bool = False
    """Whether the text ends inside the reasoning, so there is no answer."""
    truncated: bool = False
    """Whether the text was cut off by a limit instead of ended by the model."""


class _Place(Enum):
    BEFORE = auto()
    REASONING = auto()
    ANSWER = auto()


class Parter:
    """Separates the reasoning in a text that arrives in pieces, wherever they are cut.

    `feed` yields spans of text, each with whether it is reasoning. It holds back text that may
    become a tag, and drops whitespace before the answer. `close` yields the text held back.
    """

    def __init__(self, opened: Tags | None = None) -> None:
        """Start before the answer, or inside reasoning that the prompt has ``opened``."""
        self._tags = opened
        self._place = _Place.REASONING if opened else _Place.BEFORE
        self._held = ""

    @property
    def reasoning(self) -> bool:
        """Whether the text so far ends inside reasoning."""
        return self._place is _Place.REASONING

    @property
    def reasoned(self) -> bool:
        """Whether there was reasoning and it has ended."""
        return self._tags is not None and not self.reasoning

    @property
    def answering(self) -> bool:
        """Whether the answer has begun, or comes next."""
        return self.reasoned or self._place is _Place.ANSWER

    def feed(self, piece: str) -> Iterator[tuple[str, bool]]:
        """Add a piece; yield the text that is certain, and whether it is reasoning."""
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
        """End the text; yield what was held back."""
        held = self._held if self.reasoning else self._held.lstrip()
        self._held = ""
        if held:
            yield held, self.reasoning

    def _begin(self) -> bool:
        """Decide whether reasoning or the answer begins; return False if more text is needed."""
        text = self._held.lstrip()
        for tags in TAGS:
            if text.startswith(tags.start):
                self._tags, self._place = tags, _Place.REASONING
                self._held = text.removeprefix(tags.start)
                return True
        if any(tags.start.startswith(text) for tags in TAGS):  # also if there is no text yet
            return False
        self._held, self._place = text, _Place.ANSWER
        return True

    def _until_end(self) -> tuple[str, bool]:
        """Return the reasoning up to its end tag, and whether the end tag was found."""
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
    """Separate the reasoning in a whole text; ``opened`` is the tag that its prompt ends with."""
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
    """Return a reply without surrounding whitespace, and without an incomplete last character."""
    if truncated:
        answer, reasoning = answer.rstrip(REPLACEMENT), reasoning.rstrip(REPLACEMENT)
    return Reply(answer.strip(), reasoning.strip(), unfinished, truncated)


def part_unseen(text: str, *, truncated: bool = False) -> Reply:
    """Separate the reasoning in a text whose prompt is unknown, such as an endpoint's reply.

    A closing tag before any opening one means that the prompt had opened it.
    """
    return part(text, _closed_first(text), truncated=truncated)


def opened_by(prompt: str, question: str = "") -> Tags | None:
    """Return the tag that a prompt leaves open, so that the reply begins inside reasoning.

    ``question`` is the last message of the prompt. Tags in it and before it do not count.
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
    """Return whether a chat template contains a reasoning tag."""
    return any(text in template for text in TAG_TEXTS)


def _closed_first(text: str) -> Tags | None:
    ends = [(at, tags) for tags in TAGS if (at := text.find(tags.end)) >= 0]
    if not ends:
        return None
    at, tags = min(ends, key=lambda found: found[0])
    return None if tags.start in text[:at] else tags
