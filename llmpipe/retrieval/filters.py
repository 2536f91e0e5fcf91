"""What a search may be narrowed to, read from the plain data that a spec or a request holds.

``document`` takes a pattern of document ids or several (see `llmpipe.retrieval.globs`), ``section``
a title or the titles from the outermost inwards, and what stands below is part of it. Every other
name is a key of the metadata: a value, several of which any may match, or ``{min: …, max: …}``,
both bounds included, of numbers or of texts such as dates.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmpipe.documents.model import Scalar
from llmpipe.errors import StageError, did_you_mean
from llmpipe.retrieval.globs import WILDCARDS, Glob, has_wildcards

Filters = Mapping[str, Any]

DOCUMENT = "document"
SECTION = "section"
EXAMPLE = "{document: 'docs/*.md', section: Install, year: {min: 2020}, language: [en, de]}"

LISTED = 20
"""Names that a message lists."""

MOST_VALUES = 1_000
"""Values that the filters of a request may hold together."""
LONGEST_VALUE = 8_192
"""Characters of a name or value in them: more than any path has."""
MOST_WILDCARDS = 32
"""Wildcards in all their patterns of documents. Each is looked for in the id of every document."""

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
        named = {pattern for pattern in self.documents if not has_wildcards(pattern)}
        globs = [Glob(pattern) for pattern in self.documents if has_wildcards(pattern)]
        return [name in named or any(glob.matches(name) for glob in globs) for name in ids]


def read_filters(filters: Filters) -> Conditions:
    """Read filters.

    Raises:
        FilterError: one of them is of no known form.
    """
    metadata = [(k, _condition(k, v)) for k, v in filters.items() if k not in (DOCUMENT, SECTION)]
    return Conditions(_texts(filters, DOCUMENT), _texts(filters, SECTION), tuple(metadata))


def require_moderate(filters: Filters) -> None:
    """Make sure that filters of a caller, who is anybody, keep no others waiting.

    Raises:
        FilterError: they have too many values or wildcards, or too long ones.
    """
    values = [value for given in filters.values() for value in _values(given)]
    if len(values) > MOST_VALUES:
        raise _immoderate(len(values), "values", MOST_VALUES)
    texts = [text for text in (*filters, *values) if isinstance(text, str)]
    if (longest := max(map(len, texts), default=0)) > LONGEST_VALUE:
        raise _immoderate(longest, "characters in one value", LONGEST_VALUE)
    patterns = [each for each in _values(filters.get(DOCUMENT, ())) if isinstance(each, str)]
    wildcards = sum(pattern.count(sign) for pattern in patterns for sign in WILDCARDS)
    if wildcards > MOST_WILDCARDS:
        raise _immoderate(wildcards, "wildcards (* ? [)", MOST_WILDCARDS)


def _values(given: Any) -> Sequence[Any]:
    if isinstance(given, Mapping):
        return list(given.values())
    return given if isinstance(given, (list, tuple)) else [given]


def _immoderate(count: int, what: str, most: int) -> FilterError:
    return FilterError(f"the filters have {count:,} {what}; a request may have {most:,}")


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
