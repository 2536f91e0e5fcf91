"""Write XML and HTML so that no text of a user's can become markup.

`Markup` is text that may stand in a document as it is; whatever else is put into an `element` is
escaped on its way in. What no document may hold (control characters, halves of surrogate pairs)
becomes U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape as escape_html

_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Markup(str):
    """Text that is safe to stand in a document as it is."""

    __slots__ = ()


Attribute = str | int | float | bool | None
"""The value of an attribute. True writes the bare name as HTML has it; None and False, nothing."""


def escape(text: object) -> Markup:
    """Make text safe, both between tags and inside a quoted attribute; `Markup` stays as it is."""
    if isinstance(text, Markup):
        return text
    return Markup(escape_html(_UNFIT.sub("\ufffd", str(text))))


def join(parts: Iterable[object]) -> Markup:
    """Put parts after one another, each made safe."""
    return Markup("".join(map(escape, parts)))


def element(name: str, *content: object, **attributes: Attribute) -> Markup:
    """Give an element with its content, each part of it made safe.

    The names of attributes are written with ``_`` for ``-``, and with one more at the end where
    they would be a Python keyword: ``class_``, ``stroke_width``.
    """
    return Markup(f"<{name}{_attributes(attributes)}>{join(content)}</{name}>")


def _attributes(attributes: dict[str, Attribute]) -> str:
    written = []
    for key, value in attributes.items():
        name = key.rstrip("_").replace("_", "-")
        if value is True:
            written.append(f" {name}")
        elif value is not None and value is not False:
            shown = f"{value:.6g}" if isinstance(value, float) else value
            written.append(f' {name}="{escape(shown)}"')
    return "".join(written)
