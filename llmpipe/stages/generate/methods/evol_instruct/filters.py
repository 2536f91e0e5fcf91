"""When Evol-Instruct rejects a text: pure functions that return a reason, or None to keep it.

The judge's verdict on information gain is not here: it takes a request (see the package).
"""

from __future__ import annotations

import re

from llmpipe.formats.leakage import normalize
from llmpipe.stages.generate.methods.evol_instruct.prompts import LEAKS

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
