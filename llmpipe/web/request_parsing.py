"""Read and validate the JSON and the parameters of requests."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from llmpipe.web.errors import ApiError
from llmpipe.web.validation_errors import complaint

LARGEST_BODY = 1_000_000
"""The maximum number of bytes of a request."""
DRAINED = 15 * LARGEST_BODY
"""Bytes beyond that which are read and dropped, so that the client reads the error response."""

T = TypeVar("T")


async def read_json(request: Request, kind: type[T]) -> T:
    """Read the JSON of a request as a type.

    Raises:
        ApiError: It is too large, not JSON, or not of the type.
    """
    return converted(await read_data(request), kind)


async def read_data(request: Request, largest: int = LARGEST_BODY) -> Any:
    """Read the JSON of a request with at most ``largest`` bytes.

    Raises:
        ApiError: It is too large, or not JSON.
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
    """Convert data to the type that a route takes.

    Args:
        data: The data that was sent.
        kind: The type that the route takes.
        place: The position of the data in the request; empty for the whole request.

    Raises:
        ApiError: The data does not fit the type.
    """
    try:
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError as error:
            message, reason = complaint(error, data, kind)
    except RecursionError:  # in the conversion, or in the error message
        raise _too_deep() from None
    where = f"{place}: " if place else ""
    raise ApiError(400, "invalid_request", where + message, reason=where + reason)


def _too_deep() -> ApiError:
    return ApiError(400, "invalid_request", "the request is nested too deeply")


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError:
        raise ApiError(400, "invalid_request", "the request contains too large a number") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "invalid_json", f"the request is not JSON: {error}") from None


def read_place(request: Request, name: str, default: int) -> int:
    """Read a character position from a request's query.

    Raises:
        ApiError: It is not a position.
    """
    given = request.query_params.get(name)
    if given is None:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        rule = f"`{name}` is a number of characters"
        raise ApiError(400, "invalid_place", f"{rule}, not {given!r}", reason=rule)
    return int(given)
