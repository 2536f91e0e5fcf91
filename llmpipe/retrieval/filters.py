"""What a search may be narrowed to, read from the plain data that a spec or a request holds.

``document`` takes a pattern of document ids or several (``*`` and ``?`` match, also across ``/``),
``section`` a title or the titles from the outermost inwards, and what stands below is part of it.
Every other name is a key of the metadata: a value, several of which any may match, or
``{min: …, max: …}``, both bounds included, of numbers or of texts such as dates.
"""

from __future__ import annotations

import fnmatch
import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpipe.documents.model import Scalar
from llmpipe.errors import StageError, did_you_mean

Filters = Mapping[str, Any]

DOCUMENT = "document"
SECTION = "section"
EXAMPLE = "{document: 'docs/*.md', section: Install, year: {min: 2020}, language: [en, de]}"

LISTED = 20
"""Names that a message lists."""

_LARGEST = int(sys.float_info.max)


class FilterError(StageError):
    """A filter cannot be used: it is of no known form, or asks for what no document has."""


@dataclass(frozen=True, slots=True)
class Between:
    """A range of numbers or of texts; None is no bound."""

    low: Scalar | None
    high: Scalar | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a chunk must meet. An empty field asks for nothing."""

    documents: tuple[str, ...] = ()
    section: tuple[str, ...] = ()
    metadata: tuple[tuple[str, tuple[Scalar, ...] | Between], ...] = ()

    def admits_documents(self, ids: Sequence[str]) -> list[bool]:
        """Tell for each document id whether one of the patterns matches it."""
        pattern = "|".join(fnmatch.translate(glob) for glob in self.documents)
        matches = re.compile(pattern).match
        return [matches(name) is not None for name in ids]


def read_filters(filters: Filters) -> Conditions:
    """Read filters.

    Raises:
        FilterError: one of them is of no known form.
    """
    metadata = [(k, _condition(k, v)) for k, v in filters.items() if k not in (DOCUMENT, SECTION)]
    return Conditions(_texts(filters, DOCUMENT), _texts(filters, SECTION), tuple(metadata))


def _texts(filters: Filters, name: str) -> tuple[str, ...]:
    if name not in filters:
        return ()
    value = filters[name]
    given = [value] if isinstance(value, str) else value
    if given and isinstance(given, (list, tuple)) and all(isinstance(text, str) for text in given):
        return tuple(given)
    raise _unclear(name, value, "a text or a list of texts")


def _condition(key: str, value: Any) -> tuple[Scalar, ...] | Between:
    if isinstance(value, Mapping):
        bounds = list(value.values())
        _require_room(key, bounds)
        numbers = all(isinstance(b, (int, float)) and not isinstance(b, bool) for b in bounds)
        if not bounds or not {"min", "max"}.issuperset(value):
            raise _unclear(key, value, "a range with `min`, `max` or both")
        if not numbers and not all(isinstance(bound, str) for bound in bounds):
            raise _unclear(key, value, "a range of numbers or of texts")
        return Between(value.get("min"), value.get("max"))
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values or not all(isinstance(item, (str, int, float, bool)) for item in values):
        raise _unclear(key, value, "a value, a list of values or a range")
    _require_room(key, values)
    return tuple(values)


def _require_room(key: str, values: Sequence[Any]) -> None:
    """Make sure that whole numbers can be compared with the others; JSON knows no largest one."""
    if any(isinstance(value, int) and abs(value) > _LARGEST for value in values):
        raise FilterError(f"the filter {key!r} has a number that is larger than any in an index")


def require_key(key: str, keys: Sequence[str]) -> None:
    """Make sure that a key of the metadata is one of those that the documents have.

    Raises:
        FilterError: it is not; with the one that may be meant.
    """
    if key in keys:
        return
    known = [DOCUMENT, SECTION, *keys]
    listed = ", ".join(known[:LISTED]) + (", …" if len(known) > LISTED else "")
    raise FilterError(
        f"the filter {key!r} is of no use: no document has that in its metadata",
        hint=did_you_mean(key, known) or f"what can be filtered by: {listed}",
    )


def _unclear(name: str, value: Any, wanted: str) -> FilterError:
    return FilterError(
        f"the filter {name!r} is {reprlib.repr(value)}; it takes {wanted}",
        hint=f"for example: {EXAMPLE}",
    )
