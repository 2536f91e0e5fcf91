"""What the services share: routes behind the guard, and errors in one format."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llmpipe.web.errors import ApiError, internal_error
from llmpipe.web.metrics import RequestMetrics
from llmpipe.web.middleware import Admission, Guard


class _Whole(Convertor[str]):
    """The rest of a path, including line breaks, at which Starlette's own convertor ends."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("path", _Whole())


def make_application(
    routes: Sequence[Route],
    admission: Admission,
    metrics: RequestMetrics,
    *,
    open_paths: Collection[str],
) -> ASGIApp:
    """Return the routes as a guarded ASGI application.

    Args:
        routes: The routes to serve.
        admission: Who may call.
        metrics: Counts the requests.
        open_paths: The paths that need no key.
    """
    app = Starlette(
        routes=routes,
        exception_handlers={
            ApiError: _refused,
            HTTPException: _no_route,
            ClientDisconnect: _unheard,
            Exception: _broken,
        },
    )
    app.router.redirect_slashes = False
    paths = {route.endpoint: route.path for route in routes}
    return Guard(
        app,
        admission,
        metrics,
        needs_key=lambda path: path not in open_paths,
        route_of=lambda scope: paths.get(scope.get("endpoint", _refused), "other"),
    )


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    message = f"{request.method} {request.url.path}: {error.detail}"
    refusal = ApiError(error.status_code, code, message, error.headers, reason=error.detail)
    return refusal.response()


async def _unheard(request: Request, error: Exception) -> Response:
    return _Silence()


async def _broken(request: Request, error: Exception) -> Response:
    return internal_error().response()


class _Silence(Response):
    """A response that sends nothing, for a client that has disconnected."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pass
