"""Read what a request says."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from llmpipe.web.errors import ApiError
from llmpipe.web.validation_errors import complaint

LARGEST_BODY = 1_000_000
"""Bytes that a request may have."""
DRAINED = 15 * LARGEST_BODY
"""Bytes beyond that which are read and dropped, so that the sender gets to hear the refusal."""

T = TypeVar("T")


async def read_json(request: Request, kind: type[T]) -> T:
    """Read the JSON of a request.

    Raises:
        ApiError: it is too large, no JSON, or not what the route takes.
    """
    return converted(await read_data(request), kind)


async def read_data(request: Request, largest: int = LARGEST_BODY) -> Any:
    """Read the JSON of a request, whatever it says; it has at most so many bytes.

    Raises:
        ApiError: it is too large, or no JSON.
    """
    size, parts = 0, []
    async for part in request.stream():
        size += len(part)
        if size <= largest:
            parts.append(part)
        elif size > largest + DRAINED:
            break
    if size > largest:
        raise ApiError(413, "body_too_large", f"a request has at most {largest:,} bytes")
    try:
        return _decoded(b"".join(parts))
    except RecursionError:
        raise _too_deep() from None


def converted(data: Any, kind: type[T], place: str = "") -> T:
    """Make data into what a route takes.

    Args:
        data: what was sent.
        kind: what the route takes.
        place: where the data stands in the request; the whole of it by default.

    Raises:
        ApiError: it is something else.
    """
    try:
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError as error:
            message, reason = complaint(error, data, kind)
    except RecursionError:  # in reading, or in showing what was read
        raise _too_deep() from None
    where = f"{place}: " if place else ""
    raise ApiError(400, "invalid_request", where + message, reason=where + reason)


def _too_deep() -> ApiError:
    return ApiError(400, "invalid_request", "the request is nested too deeply")


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError:
        raise ApiError(400, "invalid_request", "the request holds too large a number") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "invalid_json", f"the request is not JSON: {error}") from None


def read_place(request: Request, name: str, default: int) -> int:
    """Read the number of a character from a request's address.

    Raises:
        ApiError: it is none.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        rule = f"`{name}` is a number of characters"
        raise ApiError(400, "invalid_place", f"{rule}, not {given!r}", reason=rule)
    return int(given)
