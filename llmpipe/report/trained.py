"""The first rows that stages trained on, with the text that is trained marked."""

from __future__ import annotations

import html
import re

from markupsafe import Markup

from llmpipe.report.facts import Facts
from llmpipe.report.rendering import NOTHING, render


def trained_rows(facts: Facts) -> Markup:
    """Return the rows of every stage that this run trained; `llmpipe show` prints more."""
    found = {name: [marked(text) for text in rows] for name, rows in facts.trained_rows.items()}
    return render("trained.html", facts=facts, rows=found) if found else NOTHING


def marked(text: str) -> Markup:
    """Return a text as HTML, with what stands between ⟦ and ⟧ as a mark.

    A text that was cut may lack the last ⟧.
    """
    return Markup(re.sub(r"⟦[^⟦⟧]*⟧?", r"<mark>\g<0></mark>", html.escape(text)))
