"""The service of a served model as one application: its routes and their requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Gauge
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.web.application import make_application
from llmpipe.web.errors import json_response
from llmpipe.web.metrics import RequestMetrics
from llmpipe.web.middleware import Admission
from llmpipe.web.model import requests
from llmpipe.web.model.checks import Served
from llmpipe.web.model.names import named_roles
from llmpipe.web.model.relay import Relay
from llmpipe.web.model.responses import ResponsesRequest
from llmpipe.web.model.upstream import Upstream
from llmpipe.web.queueing import Line
from llmpipe.web.request_parsing import read_as

WAITING = 256
"""The number of requests that may wait for a slot."""
LARGEST_BODY = 16_000_000
"""The maximum number of bytes of a request: room for long contexts written as escapes."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """A route of llama.cpp: its request type, and whether it computes in a slot."""

    path: str
    fields: Any
    takes_slot: bool = True


GENERATIONS = (
    _Kind("/v1/chat/completions", requests.ChatRequest),
    _Kind("/v1/completions", requests.CompletionRequest),
    _Kind("/v1/responses", ResponsesRequest),
    _Kind("/completion", requests.NativeRequest),
)
LOOKUPS = (
    _Kind("/tokenize", requests.TokenizeRequest, takes_slot=False),
    _Kind("/detokenize", requests.DetokenizeRequest, takes_slot=False),
    _Kind("/apply-template", requests.ChatRequest, takes_slot=False),
)


def make_model_service(
    server: LlamaServer,
    model: Path,
    admission: Admission,
    *,
    slots: int,
    waiting: int = WAITING,
    tells_cached: bool = False,
) -> ASGIApp:
    """Return the service as an ASGI application.

    Args:
        server: llama.cpp's server, which only this service may call.
        model: The file that it serves; callers do not see its path.
        admission: Who may call.
        slots: The number of conversations that are answered at the same time.
        waiting: The number of requests that may wait for a slot.
        tells_cached: Whether callers can see how much of a prompt was cached.
    """
    props = server.props()
    described = server.described()
    served = Served(
        server.model,
        int(described["meta"]["n_vocab"]),
        str(props.get("chat_template", "")),
        props.get("chat_template_caps", {}),
        named_roles(server),
        tells_cached,
    )
    place = urlsplit(server.url)
    upstream = Upstream(place.hostname or "", place.port or 0, server.api_key or "")
    relay = Relay(upstream, Line(slots, waiting), model, server.model, tells_cached)
    about = _About(server, described, key_required=admission.api_key is not None)
    metrics = RequestMetrics(CollectorRegistry())
    waits = Gauge(
        "llmpipe_requests_waiting", "Requests that wait for a slot.", registry=metrics.registry
    )
    waits.set_function(lambda: relay.line.waiting)
    routes = [
        Route("/health", about.health),
        Route("/metrics", metrics.show),
        Route("/v1/models", about.models),
        Route("/v1/models/{id:path}", partial(about.model, served)),
    ]
    for kind in (*GENERATIONS, *LOOKUPS):
        routes.append(Route(kind.path, _endpoint(kind, served, relay), methods=["POST"]))
    return make_application(routes, admission, metrics, open_paths=("/health",))


def _endpoint(
    kind: _Kind, served: Served, relay: Relay
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        fields = await read_as(
            request, lambda data: requests.read_request(data, kind.fields, served), LARGEST_BODY
        )
        return relay.answer(kind.path, fields, takes_slot=kind.takes_slot)

    return endpoint


class _About:
    """The routes that describe the service and its health."""

    def __init__(
        self, server: LlamaServer, described: Mapping[str, Any], *, key_required: bool
    ) -> None:
        self._server = server
        self._key_required = key_required
        self._model = {
            "id": server.model,
            "object": "model",
            "created": described["created"],
            "owned_by": "llmpipe",
            "meta": described["meta"],
        }

    async def health(self, request: Request) -> Response:
        """Return whether the model's server is alive, without asking it, as it may be busy."""
        if self._server.process.poll() is not None:
            return json_response({"status": "failed", "message": "the model's server died"}, 503)
        return json_response(
            {"status": "ok", "stage": self._server.model, "key_required": self._key_required}
        )

    async def models(self, request: Request) -> Response:
        """Return the list of the one model."""
        return json_response({"object": "list", "data": [self._model]})

    async def model(self, served: Served, request: Request) -> Response:
        """Return the one model by its name."""
        served.require_name(request.path_params["id"])
        return json_response(self._model)
