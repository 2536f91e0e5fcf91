"""The requests of the textbook method, and the rubric of its judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from llmpipe.stages.generate.judge import Judge
from llmpipe.stages.generate.replies import Messages

Form = Literal["lesson", "exercise"]

TOPICS_AT_ONCE = 20
"""Topics that one reply lists, at most."""

SHOWN_TOPICS = 60
"""Earlier topics that a request for more of them names, the latest ones."""

AUDIENCES = (
    "children who have just learned to read",
    "pupils of about fourteen",
    "first-year students",
    "adults who know nothing of the subject",
    "people who work in the field",
)

STYLES: dict[Form, tuple[str, ...]] = {
    "lesson": (
        "a section of a textbook, with definitions before they are used",
        "a lesson built around worked examples",
        "a story in which someone finds it out",
        "a conversation between a teacher and a learner who asks good questions",
        "a guide in numbered steps",
    ),
    "exercise": (
        "a problem that takes several steps of reasoning",
        "a question that asks why or how",
        "a case from everyday life in which the topic has to be applied",
        "a claim with a mistake that has to be found and corrected",
    ),
}

EXERCISE_SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["question", "answer"],
    "additionalProperties": False,
}

TOPICS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "topics": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": TOPICS_AT_ONCE,
        }
    },
    "required": ["topics"],
    "additionalProperties": False,
}

EDUCATIONAL_VALUE = Judge(
    rubric=(
        "How much does a reader learn from it? "
        "0: nothing, it is empty, off the topic or unreadable. "
        "1: a few facts among much else. "
        "2: something, but it is disordered, shallow or partly wrong. "
        "3: it explains its topic correctly and in order. "
        "4: it is clear, correct and complete for its readers, with examples or reasons. "
        "5: a teacher would use it as it is."
    ),
    scale=(0, 5),
    threshold=3,
)
"""The judge of a text's educational value: a scale and a threshold like those of FineWeb-Edu."""

_LESSON = (
    "Write {style} on the topic '{topic}', for {audience}. Explain it so that they understand it "
    "and could use it. Use about {words} words. Write only the text itself, without a remark "
    "before or after it."
)
_EXERCISE = (
    "Write an exercise on the topic '{topic}', for {audience}: {style}. It must contain all that "
    "is needed to solve it. Then write the answer, with the steps that lead to it, in at most "
    '{words} words. Reply with JSON: {{"question": …, "answer": …}}'
)
_TOPICS = (
    "List {count} topics for lessons on: {subject}. Each is specific enough for one page, takes "
    "two to eight words, and differs from the others."
)
_MORE_TOPICS = " These exist already: {known}."


def writing_messages(form: Form, topic: str, audience: str, style: str, words: int) -> Messages:
    """Ask for a lesson or an exercise."""
    text = _LESSON if form == "lesson" else _EXERCISE
    asked = text.format(topic=topic, audience=audience, style=style, words=words)
    return [{"role": "user", "content": asked}]


def topic_messages(subject: str, count: int, known: Sequence[str]) -> Messages:
    """Ask for topics of a subject that differ from the known ones."""
    asked = _TOPICS.format(count=min(count, TOPICS_AT_ONCE), subject=subject)
    if known:
        asked += _MORE_TOPICS.format(known="; ".join(known[-SHOWN_TOPICS:]))
    return [{"role": "user", "content": asked + ' Reply with JSON: {"topics": […]}'}]
