"""Read search filters from the plain data of a spec or a request.

``document`` takes one or several patterns of document ids (see `llmpipe.retrieval.globs`).
``section`` takes a heading, or the headings from the outermost inwards; subsections are included.
Every other name is a metadata key. Its filter is a value, a list of values of which any may match,
or a range ``{min: …, max: …}`` of numbers or of strings such as dates, both bounds included.
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
"""How many names a message lists."""

MAX_VALUES = 1_000
"""How many values the filters of one request may contain in total."""
MAX_VALUE_LENGTH = 8_192
"""Length limit in characters of a name or value: longer than any path."""
MAX_WILDCARDS = 32
"""How many wildcards the document patterns may contain in total. Each one is matched against the id
of every document."""

_LARGEST = int(sys.float_info.max)


class FilterError(StageError):
    """A filter is malformed, or its key is in no document's metadata."""


@dataclass(frozen=True, slots=True)
class Between:
    """A range of numbers or strings; None means no bound."""

    low: Scalar | None
    high: Scalar | None


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a chunk must match. An empty field matches everything."""

    documents: tuple[str, ...] = ()
    section: tuple[str, ...] = ()
    metadata: tuple[tuple[str, tuple[Scalar, ...] | Between], ...] = ()

    def admits_documents(self, ids: Sequence[str]) -> list[bool]:
        """Return for each document id whether one of the patterns matches it."""
        named = {pattern for pattern in self.documents if not has_wildcards(pattern)}
        globs = [Glob(pattern) for pattern in self.documents if has_wildcards(pattern)]
        return [name in named or any(glob.matches(name) for glob in globs) for name in ids]


def read_filters(filters: Filters) -> Conditions:
    """Parse filters.

    Raises:
        FilterError: a filter is malformed.
    """
    metadata = [(k, _condition(k, v)) for k, v in filters.items() if k not in (DOCUMENT, SECTION)]
    return Conditions(_texts(filters, DOCUMENT), _texts(filters, SECTION), tuple(metadata))


def require_moderate(filters: Filters) -> None:
    """Check that the filters of a request are cheap enough not to delay other requests.

    Raises:
        FilterError: they contain too many values or wildcards, or too long ones.
    """
    values = [value for given in filters.values() for value in _values(given)]
    if len(values) > MAX_VALUES:
        raise _over_limit(len(values), "values", MAX_VALUES)
    texts = [text for text in (*filters, *values) if isinstance(text, str)]
    if (longest := max(map(len, texts), default=0)) > MAX_VALUE_LENGTH:
        raise _over_limit(longest, "characters in one value", MAX_VALUE_LENGTH)
    patterns = [each for each in _values(filters.get(DOCUMENT, ())) if isinstance(each, str)]
    wildcards = sum(pattern.count(sign) for pattern in patterns for sign in WILDCARDS)
    if wildcards > MAX_WILDCARDS:
        raise _over_limit(wildcards, "wildcards (* ? [)", MAX_WILDCARDS)


def _values(given: Any) -> Sequence[Any]:
    if isinstance(given, Mapping):
        return list(given.values())
    return given if isinstance(given, (list, tuple)) else [given]


def _over_limit(count: int, what: str, most: int) -> FilterError:
    return FilterError(f"the filters have {count:,} {what}; a request may have {most:,}")


def _texts(filters: Filters, name: str) -> tuple[str, ...]:
    if name not in filters:
        return ()
    value = filters[name]
    given = [value] if isinstance(value, str) else value
    if given and isinstance(given, (list, tuple)) and all(isinstance(text, str) for text in given):
        return tuple(given)
    raise _malformed(name, value, "a text or a list of texts")


def _condition(key: str, value: Any) -> tuple[Scalar, ...] | Between:
    if isinstance(value, Mapping):
        bounds = list(value.values())
        _require_comparable(key, bounds)
        numbers = all(isinstance(b, (int, float)) and not isinstance(b, bool) for b in bounds)
        if not bounds or not {"min", "max"}.issuperset(value):
            raise _malformed(key, value, "a range with `min`, `max` or both")
        if not numbers and not all(isinstance(bound, str) for bound in bounds):
            raise _malformed(key, value, "a range of numbers or of texts")
        return Between(value.get("min"), value.get("max"))
    values = value if isinstance(value, (list, tuple)) else [value]
    if not values or not all(isinstance(item, (str, int, float, bool)) for item in values):
        raise _malformed(key, value, "a value, a list of values or a range")
    _require_comparable(key, values)
    return tuple(values)


def _require_comparable(key: str, values: Sequence[Any]) -> None:
    """Check that integers are small enough to compare with floats; JSON has no upper limit."""
    if any(isinstance(value, int) and abs(value) > _LARGEST for value in values):
        raise FilterError(f"the filter {key!r} has a number that is larger than any in an index")


def require_key(key: str, keys: Sequence[str]) -> None:
    """Check that a metadata key occurs in the documents.

    Raises:
        FilterError: it does not; the hint suggests a similar key.
    """
    if key in keys:
        return
    known = [DOCUMENT, SECTION, *keys]
    listed = ", ".join(known[:LISTED]) + (", …" if len(known) > LISTED else "")
    raise FilterError(
        f"the filter {key!r} matches nothing: no document has this key in its metadata",
        hint=did_you_mean(key, known) or f"available filters: {listed}",
    )


def _malformed(name: str, value: Any, wanted: str) -> FilterError:
    return FilterError(
        f"the filter {name!r} is {reprlib.repr(value)}; it takes {wanted}",
        hint=f"for example: {EXAMPLE}",
    )
