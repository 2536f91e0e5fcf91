"""Errors of requests, in the format that OpenAI's clients read."""

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
    """An error of a request. Programs recognize it by ``code``.

    ``reason`` replaces the message in the log if the message contains the caller's content, the
    name of a document, or the text of a model's server.
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
        """Return the error in OpenAI's format."""
        kind = _TYPES.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {"error": {"message": self.message, "type": kind, "code": self.code}}

    def note(self) -> None:
        """Log the error."""
        level = logging.ERROR if self.status >= 500 else logging.WARNING
        log.log(level, "%d %s: %s", self.status, self.code, self.reason)

    def response(self) -> Response:
        """Log the error and return it as a response."""
        self.note()
        return json_response(self.data(), self.status, self.headers)


def one_line(error: LlmpipeError) -> str:
    """Return an error's message and hint in one line."""
    hint = " ".join((error.hint or "").split())
    return f"{error.message}; {hint}" if hint else error.message


def gist_of(error: LlmpipeError) -> str:
    """Return what may be logged of an error: a model server's own text may quote the question."""
    found = next((e for e in (error, error.__cause__) if isinstance(e, ModelServerError)), None)
    return found.gist if found else error.message


def require_model(asked: str, *served: str) -> None:
    """Require that a caller asks for a served model.

    Raises:
        ApiError: The caller asks for another model.
    """
    if asked not in served:
        told = f"there is no model {asked!r} here, only {' and '.join(map(repr, served))}"
        raise ApiError(404, "model_not_found", told, reason="there is no model of that name")


def unsupported(what: str, name: str | None = None) -> ApiError:
    """Return the error for something unsupported; the caller's ``name`` is not logged."""
    reason = f"this service does not take {what}"
    message = reason if name is None else f"{reason} {name!r}"
    return ApiError(400, "unsupported", message, reason=reason)


def internal_error() -> ApiError:
    """Return the error for a bug, whose details are only in the log."""
    return ApiError(500, "internal_error", "llmpipe has a bug here; its log says more")


def stopping() -> ApiError:
    """Return the error for an answer that is cut off because the service stops."""
    return ApiError(503, "stopping", "this service has been told to end")


def search_failed(error: LlmpipeError) -> ApiError:
    """Return the error for a failed search."""
    return ApiError(503, "search_failed", one_line(error), reason=gist_of(error))


def json_response(
    data: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return data as a JSON response."""
    return Response(msgspec.json.encode(data), status, headers, "application/json")


def event_of(data: Any) -> bytes:
    """Return data as one event of a stream."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"
