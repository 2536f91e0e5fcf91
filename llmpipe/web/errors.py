"""What goes wrong with a request, told in the shape that OpenAI's clients read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response

from llmpipe.errors import LlmpipeError, ModelServerError

log = logging.getLogger("llmpipe.web")

_TYPES = {401: "authentication_error"}


class ApiError(Exception):
    """A request that gets no answer. ``code`` is the word that programs tell it by.

    ``reason`` is what the log is told where the message holds what the caller sent, the name of a
    document, or what a model's server said.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.reason = message if reason is None else reason

    def data(self) -> dict[str, Any]:
        """Give the error as OpenAI's API words it."""
        kind = _TYPES.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {"error": {"message": self.message, "type": kind, "code": self.code}}

    def note(self) -> None:
        """Note the error in the log."""
        level = logging.ERROR if self.status >= 500 else logging.WARNING
        log.log(level, "%d %s: %s", self.status, self.code, self.reason)

    def response(self) -> Response:
        """Give the error as an answer, and note it in the log."""
        self.note()
        return json_response(self.data(), self.status, self.headers)


def told(error: LlmpipeError) -> str:
    """Give a message with what to do about it, in one line."""
    hint = " ".join((error.hint or "").split())
    return f"{error.message}; {hint}" if hint else error.message


def gist_of(error: LlmpipeError) -> str:
    """Give what a log may hold of an error: what a model's server says may quote the question."""
    found = next((e for e in (error, error.__cause__) if isinstance(e, ModelServerError)), None)
    return found.gist if found else error.message


def require_model(asked: str, served: str) -> None:
    """Make sure that a caller means the model that is served.

    Raises:
        ApiError: it is another one.
    """
    if asked != served:
        told = f"there is no model {asked!r} here, only {served!r}"
        raise ApiError(404, "model_not_found", told, reason="there is no model of that name")


def unsupported(what: str, name: str | None = None) -> ApiError:
    """Refuse what cannot be done; a name that the caller gave is for the caller alone."""
    reason = f"this service does not take {what}"
    message = reason if name is None else f"{reason} {name!r}"
    return ApiError(400, "unsupported", message, reason=reason)


def internal_error() -> ApiError:
    """Give the error of a bug; what it was is for the log."""
    return ApiError(500, "internal_error", "llmpipe has a bug here; its log says more")


def stopping() -> ApiError:
    """Give the error of an answer that the end of the service cuts."""
    return ApiError(503, "stopping", "this service has been told to end")


def search_failed(error: LlmpipeError) -> ApiError:
    """Give the error of a search that failed."""
    return ApiError(503, "search_failed", told(error), reason=gist_of(error))


def json_response(
    data: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Give data as a JSON answer."""
    return Response(msgspec.json.encode(data), status, headers, "application/json")


def event_of(data: Any) -> bytes:
    """Give data as one event of a stream."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
