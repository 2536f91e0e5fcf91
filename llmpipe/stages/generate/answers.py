"""When an answer is useless as a training example, whatever the method."""

from __future__ import annotations

import re

from llmpipe.formats.leakage import normalize

_STOP_WORDS = """
a about above after again against all am an and any are as at be because been before being below
between both but by can could did do does doing down during each few for from further had has have
having he her here hers herself him himself his how i if in into is it its itself just me more most
my myself no nor not now of off on once only or other our ours ourselves out over own s same she
should so some such t than that the their theirs them themselves then there these they this those
through to too under until up very was we were what when where which while who whom why will with
would you your yours yourself yourselves
"""

STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English words that carry no content by themselves."""

APOLOGY_WORDS = 80
"""An answer that contains "sorry" and has fewer words than this is a refusal."""

_WORD = re.compile(r"\w+")


def reject_answer(answer: str, question: str = "") -> str | None:
    """Return why an answer is useless, or None.

    Args:
        answer: what the teacher wrote.
        question: what it was asked; an answer that only repeats it is useless.
    """
    words = _WORD.findall(answer.lower())
    if all(word in STOP_WORDS for word in words):
        return "says nothing"
    if "sorry" in words and len(words) < APOLOGY_WORDS:
        return "apology"
    if question and normalize(answer) == normalize(question):
        return "repeats the prompt"
    return None
