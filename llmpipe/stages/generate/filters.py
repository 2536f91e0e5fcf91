"""When Evol-Instruct eliminates: pure functions from texts to a reason, or None to keep them.

The judge's verdict on information gain is not here: it takes a call (see `evol_instruct`).
"""

from __future__ import annotations

import re
import unicodedata

from llmpipe.stages.generate.prompts import LEAKS

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
"""English words that say nothing by themselves."""

APOLOGY_WORDS = 80
"""An answer that holds "sorry" and has fewer words than this is a refusal."""

_WORD = re.compile(r"\w+")


def reject_rewrite(parent: str, rewritten: str) -> str | None:
    """Say why a rewritten prompt cannot be used, before anybody is asked about it."""
    if not _WORD.search(rewritten):
        return "empty"
    text = rewritten.lower()
    if any(words in text and words not in parent.lower() for words in LEAKS):
        return "leaks the prompt"
    if normalised(rewritten) == normalised(parent):
        return "no information gain"
    return None


def reject_answer(answer: str) -> str | None:
    """Say why an answer is worth nothing as a training example."""
    words = _WORD.findall(answer.lower())
    if all(word in STOP_WORDS for word in words):
        return "says nothing"
    if "sorry" in words and len(words) < APOLOGY_WORDS:
        return "apology"
    return None


def normalised(text: str) -> str:
    """Give what two texts have in common when they differ only in case, spaces or Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
