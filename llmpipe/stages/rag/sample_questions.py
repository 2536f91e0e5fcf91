"""Make up questions about the documents of an index, for a check whose spec names none."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from llmpipe.words import QUESTION_ENDS

if TYPE_CHECKING:
    from llmpipe.documents.model import Document
    from llmpipe.retrieval.search import Retriever

SENTENCE = (15, 200)
"""Characters of a sentence that a question is made of, at least and at most."""
SAMPLES = 2
"""Questions that the check makes up where the spec names none."""


def sample_questions(retriever: Retriever) -> list[str]:
    """Return questions about what some documents say, which their index should find."""
    names = retriever.passages.document_ids()
    chosen = [names[len(names) * i // SAMPLES] for i in range(min(SAMPLES, len(names)))]
    found = map(retriever.passages.document, dict.fromkeys(chosen))
    questions: dict[str, None] = {}
    for document in filter(None, found):
        question = _question_about(document)
        questions[_about(document.title) if question in questions else question] = None
    return list(questions)


def _question_about(document: Document) -> str:
    """Return a question that a document answers: its own, or one by its first heading or sentence.

    Its title says too little to be searched by, and may be no more than a file's name.
    """
    title = document.title.strip()
    headings = [section.path[-1].strip() for section in document.sections if section.path]
    asked = next((text for text in (title, *headings) if text.endswith(QUESTION_ENDS)), None)
    if asked:
        return asked
    told = (text for text in headings if text != title)
    subject = next(told, None) or _first_sentence(document.text, {title, *headings}) or title
    return _about(subject)


def _about(subject: str) -> str:
    return f'What is said about "{subject}"?'


def _first_sentence(text: str, headings: Collection[str]) -> str | None:
    """Return the first sentence of a text that is not a heading and has a sentence's length."""
    for line in text.splitlines():
        sentence = re.split(r"(?<=[.!?。])\s", line.strip(), maxsplit=1)[0]
        if sentence.lstrip("# ") not in headings and SENTENCE[0] <= len(sentence) <= SENTENCE[1]:
            return sentence.rstrip(".。")
    return None
