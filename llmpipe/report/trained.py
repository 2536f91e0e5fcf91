"""The first rows that stages trained on, with the text that is trained marked."""

from __future__ import annotations

import html
import re
from typing import Any

from markupsafe import Markup

from llmpipe.report.facts import Facts
from llmpipe.report.rendering import NOTHING, render


def trained_rows(facts: Facts) -> Markup:
    """Return the rows of every stage that shows some; `llmpipe show` prints more of them."""
    found = {
        name: [marked(text) for text in stage.metrics["shown"]]
        for name, stage in facts.run.stages.items()
        if _are_texts(stage.metrics.get("shown"))
    }
    return render("trained.html", facts=facts, rows=found) if found else NOTHING


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def marked(text: str) -> Markup:
    """Return a text as HTML, with what stands between ⟦ and ⟧ as a mark.

    A text that was cut may lack the last ⟧.
    """
    return Markup(re.sub(r"⟦[^⟦⟧]*⟧?", r"<mark>\g<0></mark>", html.escape(text)))
