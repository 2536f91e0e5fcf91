"""Operations of templates that could make a huge text of a small one, each with a limit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from jinja2 import Environment, pass_environment
from jinja2.filters import do_indent, make_attrgetter

LONGEST = 1_000_000
"""Characters of a text, at most, and bits of a number."""

WIDEST_INDENT = 100
"""Spaces of an indent, at most."""

REFUSED_METHODS = frozenset(
    {"center", "expandtabs", "format", "format_map", "join", "ljust", "replace", "rjust",
     "to_bytes", "translate", "zfill"}
)  # fmt: skip
"""Methods of texts and numbers whose result may be of any length; filters take their place."""

REFUSED_FILTERS = frozenset({"batch", "center", "random", "slice", "urlize", "wordwrap"})
"""Jinja's filters that differ from run to run, or whose result may be of any length."""

_WIDTH = re.compile(r"%(?:\([^)]*\))?[-+ #0]*(\*|\d*)(?:\.(\*|\d*))?")


class StoppedError(Exception):
    """A template that ran too long, or made too much."""


def short(value: Any) -> Any:
    """Return a value that is not too long."""
    if isinstance(value, str | list | tuple) and len(value) > LONGEST:
        raise StoppedError(f"a text or list has more than {LONGEST:,} items")
    return value


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Refuse ``left operator right`` if the result would be too large."""
    if operator == "*" and _size(left) * max(_amount(right), 0) > LONGEST:
        raise StoppedError(f"a text or list is repeated to more than {LONGEST:,} items")
    if operator == "*" and _size(right) * max(_amount(left), 0) > LONGEST:
        raise StoppedError(f"a text or list is repeated to more than {LONGEST:,} items")
    if operator == "**" and _bits(left) * abs(right) > LONGEST:
        raise StoppedError(f"a number has more than {LONGEST:,} bits")
    if operator == "%" and isinstance(left, str):
        _check_widths(left)


def _check_widths(pattern: str) -> None:
    for widths in _WIDTH.findall(pattern.replace("%%", "")):
        for width in filter(None, widths):
            if width == "*" or len(width) > 4:
                raise StoppedError(f"a value is written {width} characters wide")


def _format(pattern: Any, *values: Any, **named: Any) -> str:
    _check_widths(str(pattern))
    return str(short(str(pattern) % (named or values)))


def _indent(text: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    if (len(width) if isinstance(width, str) else width) > WIDEST_INDENT:
        raise StoppedError(f"an indent has more than {WIDEST_INDENT} spaces")
    return str(short(do_indent(str(text), width, first=first, blank=blank)))


def _json(value: Any, indent: int | None = None) -> str:
    """Return JSON as rows have it; Jinja's own filter escapes what HTML cannot hold."""
    if indent is not None and indent > WIDEST_INDENT:
        raise StoppedError(f"an indent has more than {WIDEST_INDENT} spaces")
    return json.dumps(value, ensure_ascii=False, indent=indent)


@pass_environment
def _joined(
    environment: Environment, items: Iterable[Any], d: str = "", attribute: str | int | None = None
) -> str:
    found = list(islice(items, LONGEST + 1))
    if attribute is not None:
        found = list(map(make_attrgetter(environment, attribute), found))
    texts = list(map(str, found))
    if sum(map(len, texts)) + len(str(d)) * len(texts) > LONGEST:
        raise StoppedError(f"the joined text has more than {LONGEST:,} characters")
    return str(d).join(texts)


def _replaced(text: Any, old: str, new: str, count: int | None = None) -> str:
    told, new = str(text), str(new)
    times = told.count(str(old)) if count is None or count < 0 else min(count, told.count(str(old)))
    if len(told) + times * len(new) > LONGEST:
        raise StoppedError(f"the text would have more than {LONGEST:,} characters")
    return told.replace(str(old), new, times)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "format": _format, "indent": _indent, "join": _joined, "replace": _replaced, "tojson": _json,
}  # fmt: skip
"""Filters that take the place of Jinja's own."""


def _size(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _amount(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0
