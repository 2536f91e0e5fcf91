"""Write Markdown from texts of a spec, a file or a metric, so that none of them becomes markup.

Every value that a template prints is escaped, unless it is `Markup` made by a function here. Before
that, secrets are hidden in it: an escaped, quoted or folded secret could no longer be recognized.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_SPECIAL = re.compile(r"([\\`*\[\]<>|#~&]|(?<![^\W_])_|_(?![^\W_]))")
"""Characters with a meaning in Markdown; an underscore inside a word has none."""
_BROKEN = re.compile("[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\ud800-\udfff]")

_hide: ContextVar[Callable[[str], str]] = ContextVar("hide", default=str)


@contextmanager
def hiding(hide: Callable[[str], str]) -> Iterator[None]:
    """Pass every value through a function before it is escaped.

    Args:
        hide: Returns a text without secrets.
    """
    before = _hide.set(hide)
    try:
        yield
    finally:
        _hide.reset(before)


def _line(value: object) -> str:
    return " ".join(_BROKEN.sub("\ufffd", _hide.get()(str(value))).split())


def text(value: object) -> Markup:
    """Return a value as one line of text."""
    if isinstance(value, Markup):
        return value
    return Markup(_SPECIAL.sub(r"\\\1", _line(value)))


def code(value: object) -> Markup:
    """Return a value as a code span; what would end a table's cell is replaced."""
    line = _line(value).replace("|", "\u2223")
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if "`" in (line[:1], line[-1:]) else ""
    return Markup(f"{fence}{pad}{line}{pad}{fence}") if line else Markup("–")


def plain(value: object) -> Markup:
    """Return a value for a line inside a block of code."""
    return Markup(_line(value).replace("`", "'"))


def block(value: str, language: str = "") -> Markup:
    """Return a text as a block of code."""
    fence = "`" * max(3, _longest_run(value) + 1)
    return Markup(f"{fence}{language}\n{_BROKEN.sub(chr(0xFFFD), value).rstrip()}\n{fence}")


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Markup:
    """Return a table; columns that are empty in all rows are left out."""
    lines = [[*map(text, row)] for row in rows]
    kept = [i for i in range(len(head)) if any(row[i] not in ("", "–") for row in lines)]
    shown: list[Sequence[str]] = [[*map(text, head)], ["---"] * len(head), *lines]
    return Markup("\n".join(f"| {' | '.join(row[i] for i in kept)} |" for row in shown))


def render(template: str, **values: Any) -> str:
    """Render a template of the folder ``templates``."""
    return _environment().get_template(template).render(values).strip() + "\n"


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("llmpipe.model_card"),
        undefined=StrictUndefined,
        finalize=text,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {"code": code, "plain": plain}
    return found


def _longest_run(value: str) -> int:
    return max(map(len, re.findall("`+", value)), default=0)
