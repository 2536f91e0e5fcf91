"""Read what a request says."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from starlette.requests import Request

from llmpipe.web.complaints import complaint
from llmpipe.web.errors import ApiError

LARGEST_BODY = 1_000_000
"""Bytes that a request may have."""
DRAINED = 16 * LARGEST_BODY
"""Bytes of a larger one that are read and dropped, so that its sender gets to hear the refusal."""

T = TypeVar("T")


async def read_json(request: Request, kind: type[T]) -> T:
    """Read the JSON of a request.

    Raises:
        ApiError: it is too large, no JSON, or not what the route takes.
    """
    size, parts = 0, []
    async for part in request.stream():
        size += len(part)
        if size <= LARGEST_BODY:
            parts.append(part)
        elif size > DRAINED:
            break
    if size > LARGEST_BODY:
        raise ApiError(413, "body_too_large", f"a request has at most {LARGEST_BODY:,} bytes")
    try:
        return _converted(_decoded(b"".join(parts)), kind)
    except RecursionError:  # in reading, or in showing what was read
        raise ApiError(400, "invalid_request", "the request is nested too deeply") from None


def _converted(data: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message, reason = complaint(error, data, kind)
        raise ApiError(400, "invalid_request", message, reason=reason) from None


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
