"""The guard in front of every route: check who may call, set security headers, count requests.

A page of another site in a browser can also send requests to this machine. The guard refuses it by
its origin, and by the host that it calls if that site's name points to our address (DNS rebinding).
No other site can read an answer, because there are no CORS headers.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmpipe.backends.binding import is_loopback
from llmpipe.web.errors import ApiError, json_response, stopping
from llmpipe.web.metrics import RequestMetrics

HUNG_UP = 499
"""The status of a request whose client disconnected before the response began."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Admission:
    """Who may call. ``loopback`` means that only this machine can reach the service."""

    loopback: bool = True
    api_key: str | None = None

    def check_place(self, headers: Headers) -> None:
        """Refuse requests that may come from another site's page.

        Raises:
            ApiError: The host or the origin is not this service's.
        """
        host = headers.get("host", "")
        if self.loopback and not is_loopback(_name(host)):
            message = f"this service is not {host!r}; call it by its loopback address"
            raise ApiError(421, "wrong_host", message, reason="called by another host's name")
        origin = headers.get("origin")
        if origin is not None and _place(origin) != host:
            raise ApiError(403, "wrong_origin", "pages of other sites may not call this service")

    def check_key(self, headers: Headers) -> None:
        """Require the API key, if there is one.

        Raises:
            ApiError: The key is missing or wrong.
        """
        if self.api_key is None:
            return
        kind, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("latin-1") if kind.lower() == "bearer" else b""
        if not given or not hmac.compare_digest(given, self.api_key.encode()):
            problem = "is not the one of this service" if given else "is missing"
            raise ApiError(
                401,
                "invalid_api_key",
                f"the API key {problem}; send it as `Authorization: Bearer …`",
                {"WWW-Authenticate": "Bearer"},
            )


class Guard:
    """Checks requests, passes them to the routes, and counts them."""

    def __init__(
        self,
        app: ASGIApp,
        admission: Admission,
        metrics: RequestMetrics,
        *,
        needs_key: Callable[[str], bool],
        route_of: Callable[[Scope], str],
    ) -> None:
        self._app = app
        self._admission = admission
        self._metrics = metrics
        self._needs_key = needs_key
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        begun, status = time.perf_counter(), HUNG_UP

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._let_through(scope, receive, send_guarded)
            except asyncio.CancelledError:  # the server stops
                if status != HUNG_UP:
                    raise
                error = stopping()
                told = json_response(error.data(), error.status)  # intended, so not logged
                await told(scope, receive, send_guarded)
            finally:
                route = self._route_of(scope)
                self._metrics.count.labels(route, str(status)).inc()
                seconds = time.perf_counter() - begun
                self._metrics.seconds.labels(route).observe(seconds)

    async def _let_through(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        try:
            self._admission.check_place(headers)
            if self._needs_key(scope["path"]):
                self._admission.check_key(headers)
        except ApiError as error:
            await error.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _name(host: str) -> str:
    """Return the name or address of a Host header without its port, or "" if it is invalid."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _place(origin: str) -> str | None:
    """Return the name and port of an Origin header, or None if it has none."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
