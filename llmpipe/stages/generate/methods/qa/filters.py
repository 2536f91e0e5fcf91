"""When `qa` rejects a question or an answer: pure functions that return a reason, or None."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from llmpipe.errors import is_text
from llmpipe.formats.leakage import normalize
from llmpipe.retrieval.citations import cite, is_statement
from llmpipe.retrieval.facts import facts_of
from llmpipe.retrieval.sentences import sentence_spans
from llmpipe.stages.generate.answers import STOP_WORDS
from llmpipe.stages.generate.methods.qa.passages import LEADS_ON, Passage, is_whole
from llmpipe.stages.generate.methods.qa.prompts import EXAMPLE_QUESTIONS, Answers
from llmpipe.stages.generate.methods.qa.quotes import Quotable, Span, canonical
from llmpipe.words import QUESTION_ENDS, plain_words, sets_spaces

FEWEST_ASKED, MOST_ASKED = 3, 60
"""Words of a question, at least and at most."""

_EXAMPLES = frozenset(map(normalize, EXAMPLE_QUESTIONS))

_TEXT = r"(?:text|passage|paragraph|excerpt|article|snippet|author|writer|speaker)s?"
_POINTED_AT = (
    rf"(?:{_TEXT}|(?:section|document|context|chapter|page|quote|sentence|statement|content)s?)"
)
_NEEDS_PASSAGE = re.compile(
    rf"""
    \b(?:in|from|by|of|within|according\ to|based\ on|per|does|do|did|is|are|as)
      \ the\ {_TEXT}\b(?!\ (?:area|box|editor|field|file|format|message|mode|widget))
  | \b(?:this|these|the\ (?:above|given|following|provided|quoted))\ {_POINTED_AT}\b
  | \b(?:mentioned|described|stated|discussed|listed|shown)\ (?:above|below|here)\b
  | \b(?:laut|gemäß)\ (?:dem|diesem|der)\ (?:text|abschnitt|artikel|passage|autor)\b
  | \b(?:im|in\ diesem|in\ dem)\ (?:text|abschnitt|artikel)\b
  | \b(?:según|en)\ (?:el|este)\ (?:texto|pasaje|párrafo|artículo|autor)\b
  | \b(?:selon|dans|d['’]après)\ (?:le|ce|cet|l['’])\ ?(?:texte|passage|article|auteur)\b
    """,
    re.VERBOSE,
)

_EMPTY_WORDS = STOP_WORDS | {"happen", "happens", "may", "mean", "means", "might", "must", "say"}


@dataclass(frozen=True, slots=True)
class Item:
    """What a teacher wrote about a passage."""

    quote: str
    question: str
    answer: str
    """Empty where the quote is the answer."""


@dataclass(frozen=True, slots=True)
class Grounded:
    """An item whose quote and answer were found. Offsets count in the passage."""

    question: str
    answer: str
    quote: Span
    answer_span: Span | None
    """Where the answer stands; None for an answer in the teacher's own words."""


def read_items(text: str, answers: Answers) -> tuple[list[Item], bool]:
    """Return the complete items of a reply, and whether it is the JSON that was asked for.

    The item in which a reply is cut off is not among them.
    """
    names = ("quote", "question") if answers == "quote" else ("quote", "question", "answer")
    decoder = json.JSONDecoder()
    found: list[Item] = []
    opened = text.find("[")
    position = opened
    while position >= 0 and (start := text.find("{", position)) >= 0:
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            break
        fields = [value.get(name) for name in names]
        if all(isinstance(field, str) and is_text(field) for field in fields):
            quote, question, *answer = (field.strip() for field in fields)
            found.append(Item(quote, question, answer[0] if answer else ""))
    return found, opened >= 0 and bool(found or re.search(r"\[\s*\]", text))


def ground(item: Item, passage: Passage, answers: Answers) -> Grounded | str:
    """Find an item's quote and answer in its passage; return them, or why it is rejected."""
    if reason := reject_question(item.question, passage):
        return reason
    quote = passage.quotable.find(item.quote)
    if quote is None:
        return "quote not in the passage"
    text = quote.of(passage.text)
    if not is_whole(text):
        return "quote ends with a colon" if text.endswith(LEADS_ON) else "quote too short"
    answer = text if answers == "quote" else item.answer
    if not plain_words(answer):
        return "no answer"
    span = Quotable(text).find(answer)
    if answers == "free":
        if not is_supported(answer, passage):
            return "answer not supported by the passage"
    elif span is None:
        return "answer not in the quote"
    if _gives_away(item.question, answer):
        return "question gives the answer away"
    if span is None:
        return Grounded(item.question, answer, quote, None)
    at = Span(quote.start + span.start, quote.start + span.end)
    return Grounded(item.question, at.of(passage.text), quote, at)


def reject_question(question: str, passage: Passage) -> str | None:
    """Return why a question cannot be used, or None."""
    words = plain_words(question)
    content = {word for word in words if word not in _EMPTY_WORDS}
    reason = None
    if not question.endswith(QUESTION_ENDS):
        reason = "not a question"
    elif normalize(question) in _EXAMPLES:
        reason = "leaks the prompt"
    elif len(words) < FEWEST_ASKED:
        reason = f"fewer than {FEWEST_ASKED} words"
    elif len(words) > MOST_ASKED:
        reason = f"more than {MOST_ASKED} words"
    elif not content or _NEEDS_PASSAGE.search(normalize(question)):
        reason = "question needs the passage"
    elif content.isdisjoint(plain_words(f"{passage.heading}\n{passage.text}")):
        reason = "question not about the passage"
    return reason


def is_supported(answer: str, passage: Passage) -> bool:
    """Return whether the passage supports every sentence of an answer in other words.

    The rule is that of the citations of a `rag` stage: enough of the words, and all quantities,
    dates and negations. An answer of fewer than three words must stand in the passage.
    """
    if passage.quotable.find(answer.rstrip(".。")):
        return True
    if not facts_of(passage.text).support(facts_of(answer)):
        return False
    supported = {citation.claim for citation in cite(answer, [passage.as_source()])}
    claims = [span for span in sentence_spans(answer) if is_statement(answer[slice(*span)])]
    return bool(claims) and supported >= set(claims)


def answers(passage: Passage, quote: str, answer: str) -> bool:
    """Return whether a passage holds the quote or the answer of another passage's question."""
    return bool(passage.quotable.find(quote) or passage.quotable.find(answer))


def _gives_away(question: str, answer: str) -> bool:
    """Return whether the answer, unless it is one word, stands in the question."""
    told, asked = canonical(answer).casefold(), canonical(question).casefold()
    is_word = " " not in told and sets_spaces(told)
    return not is_word and told.rstrip(".!?。") in asked
