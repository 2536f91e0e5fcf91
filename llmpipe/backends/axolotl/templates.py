"""Check the source of a chat template before a training starts with it."""

from __future__ import annotations

import re

JINJA = re.compile(r"\{[{%#]")
"""What every template contains: an expression, a statement or a comment."""

_GENERATION = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")
"""A statement of transformers' own; Jinja does not know it."""


def template_problem(source: str) -> str | None:
    """Return why a text is not a chat template, or None. It is parsed, not rendered."""
    if not JINJA.search(source):
        return "it contains neither {{ … }} nor {% … %}, so no chat could be written by it"
    from jinja2 import Environment
    from jinja2.exceptions import TemplateSyntaxError

    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(
            _GENERATION.sub(r"{#\1 \2#}", source)
        )
    except TemplateSyntaxError as error:
        return f"line {error.lineno} is not Jinja: {error.message}"
    return None
