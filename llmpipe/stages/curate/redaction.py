"""Replace what should not be read in the texts of a row by the name of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from llmpipe.formats.provenance import PROVENANCE


class Found(NamedTuple):
    """A place in a text that should not be read, and the kind of what stands there."""

    start: int
    end: int
    kind: str


def texts_in(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield all texts of a row, those inside lists and objects as well, but for its provenance."""
    return _texts([value for name, value in row.items() if name != PROVENANCE])


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def redacted(row: Mapping[str, Any], find: Callable[[str], Iterable[Found]]) -> dict[str, Any]:
    """Return a row with the name of its kind in place of all that is found, as ``[jwt]``."""
    return {
        name: value if name == PROVENANCE else _without(value, find) for name, value in row.items()
    }


def _without(value: Any, find: Callable[[str], Iterable[Found]]) -> Any:
    if isinstance(value, str):
        return covered(value, find(value))
    if isinstance(value, Mapping):
        return {name: _without(inner, find) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without(inner, find) for inner in value]
    return value


def covered(text: str, found: Iterable[Found]) -> str:
    """Return a text with a name in place of each place. Places that overlap become one, which has
    the name of the longest.
    """
    parts: list[str] = []
    at = 0
    for start, end, kind in _apart(found):
        parts += [text[at:start], f"[{kind}]"]
        at = end
    return "".join([*parts, text[at:]])


def _apart(found: Iterable[Found]) -> list[Found]:
    apart: list[Found] = []
    for each in sorted(found):
        if apart and each.start < apart[-1].end:
            last = apart.pop()
            longest = max(last, each, key=lambda one: (one.end - one.start, one.kind))
            each = Found(last.start, max(last.end, each.end), longest.kind)
        apart.append(each)
    return apart
