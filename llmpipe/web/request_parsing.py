"""Read and validate the JSON and the parameters of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from llmpipe.web.errors import ApiError
from llmpipe.web.validation_errors import complaint

LARGEST_BODY = 1_000_000
"""The maximum number of bytes of a request."""
AT_ONCE = 100_000
"""The number of bytes that are read in some 10 ms, so that the event loop may do it itself."""
MOST_PARTS = 500_000
"""The maximum number of brackets and braces that a request may open, in texts or not. Millions of
empty lists would hold up every thread while the garbage collector looks at them."""
DRAINED = 15 * LARGEST_BODY
"""Bytes beyond that which are read and dropped, so that the client reads the error response."""

T = TypeVar("T")


async def read_json(request: Request, kind: type[T]) -> T:
    """Read the JSON of a request as a type.

    Raises:
        ApiError: It is too large, not JSON, or not of the type.
    """
    return await read_as(request, lambda data: converted(data, kind))


async def read_as(request: Request, read: Callable[[Any], T], largest: int = LARGEST_BODY) -> T:
    """Read what a request asks for, without delaying others.

    Args:
        request: The request.
        read: Reads its JSON data. It runs in another thread if there is much of it.
        largest: The maximum number of bytes.

    Raises:
        ApiError: It is too large, or not JSON, or ``read`` refuses it.
    """
    body = await _read_body(request, largest)
    if len(body) <= AT_ONCE:
        return read(_data_of(body))
    return await asyncio.to_thread(lambda: read(_data_of(body)))


async def _read_body(request: Request, largest: int) -> bytes:
    packed = request.headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("", "identity"):
        raise ApiError(
            415, "unsupported_encoding", f"the request is packed ({packed}); send it plain"
        )
    size, parts = 0, []
    async for part in request.stream():
        size += len(part)
        if size <= largest:
            parts.append(part)
        elif size > largest + DRAINED:
            break
    if size > largest:
        raise ApiError(413, "body_too_large", f"a request has at most {largest:,} bytes")
    return b"".join(parts)


def _data_of(body: bytes) -> Any:
    if body.count(b"[") + body.count(b"{") > MOST_PARTS:
        message = f"a request has at most {MOST_PARTS:,} brackets and braces"
        raise ApiError(413, "body_too_large", message)
    try:
        return _decoded(body)
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
