"""Render HTML and SVG with Jinja2, so that text from a user never becomes markup.

Every value is escaped on its way into a template. Characters that no document may contain (control
characters, halves of surrogate pairs) become U+FFFD. A name that a template misses is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def environment(package: str, **filters: Callable[..., Any]) -> Environment:
    """Return what renders the templates in a package's folder ``templates``.

    Args:
        package: the package that owns the templates.
        filters: what the templates can pass values through, by name.
    """
    found = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_fit,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {"coordinate": coordinate, **filters}
    return found


def coordinate(value: float) -> str:
    """Write a coordinate of a drawing with six digits at most."""
    return f"{value:.6g}"


def _fit(value: object) -> object:
    """Return a value as text that a document may contain; markup stays as it is."""
    return value if isinstance(value, Markup) else _UNFIT.sub("\ufffd", str(value))
