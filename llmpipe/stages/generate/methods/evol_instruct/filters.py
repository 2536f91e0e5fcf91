"""When Evol-Instruct rejects a text: pure functions that return a reason, or None to keep it.

The judge's verdict on information gain is not here: it takes a request (see the package).
"""

from __future__ import annotations

import re

from llmpipe.formats.leakage import normalize
from llmpipe.stages.generate.methods.evol_instruct.prompts import LEAKS

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


def reject_rewrite(parent: str, rewritten: str) -> str | None:
    """Return why a rewritten prompt cannot be used, before a request is spent on it."""
    if not _WORD.search(rewritten):
        return "empty"
    text = rewritten.lower()
    if any(words in text and words not in parent.lower() for words in LEAKS):
        return "leaks the prompt"
    if normalize(rewritten) == normalize(parent):
        return "no information gain"
    return None


def reject_answer(answer: str) -> str | None:
    """Return why an answer is useless as a training example."""
    words = _WORD.findall(answer.lower())
    if all(word in STOP_WORDS for word in words):
        return "says nothing"
    if "sorry" in words and len(words) < APOLOGY_WORDS:
        return "apology"
    return None
