"""The service of a served model as one application: its routes and their requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from llmpipe.web.model.engine_limits import engine_fields, require_fields
from llmpipe.web.model.offers import Hosted, Offer, Offers
from llmpipe.web.model.relay import RESPONSES
from llmpipe.web.model.responses import ResponsesRequest
from llmpipe.web.pages import MODEL, page_routes
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
    _Kind(RESPONSES, ResponsesRequest),
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
    adapters: Sequence[str] = (),
    compared: tuple[LlamaServer, Path] | None = None,
) -> ASGIApp:
    """Return the service as an ASGI application.

    Args:
        server: llama.cpp's server, which only this service may call.
        model: The file that it serves; callers do not see its path.
        admission: Who may call.
        slots: The number of conversations that are answered at the same time, by all models
            together.
        waiting: The number of requests that may wait for a slot.
        tells_cached: Whether callers can see how much of a prompt was cached.
        adapters: The names of the LoRA adapters of the server, by number. Each is offered as a
            model.
        compared: A second server with its file, whose model is offered under its own name.
    """
    hosts = [Hosted(server, model, tuple(adapters))]
    if compared is not None:
        hosts.append(Hosted(*compared))
    line = Line(slots, waiting)
    offers = Offers(hosts, line, tells_cached=tells_cached)
    servers = [host.server for host in hosts]
    about = _About(servers, offers, key_required=admission.api_key is not None)
    metrics = RequestMetrics(CollectorRegistry())
    waits = Gauge(
        "llmpipe_requests_waiting", "Requests that wait for a slot.", registry=metrics.registry
    )
    waits.set_function(lambda: line.waiting)
    routes = [
        *page_routes(MODEL),
        Route("/health", about.health),
        Route("/metrics", metrics.show),
        Route("/v1/models", about.models),
        Route("/v1/models/{id:path}", about.model),
    ]
    for kind in (*GENERATIONS, *LOOKUPS):
        routes.append(Route(kind.path, _endpoint(kind, offers), methods=["POST"]))
    return make_application(routes, admission, metrics, open_paths=(*MODEL, "/health"))


def _endpoint(kind: _Kind, offers: Offers) -> Callable[[Request], Awaitable[Response]]:
    def read(data: Any) -> tuple[Offer, dict[str, Any]]:
        offer = offers.of(data)
        require_fields(offer.engine, kind.path, data, kind.fields.__struct_fields__)
        fields = requests.read_request(data, kind.fields, offer.served)
        fields = engine_fields(offer.engine, fields)
        return offer, offer.fields(fields) if kind.takes_slot else fields

    async def endpoint(request: Request) -> Response:
        offer, fields = await read_as(request, read, LARGEST_BODY)
        return offer.relay.answer(kind.path, fields, takes_slot=kind.takes_slot)

    return endpoint


class _About:
    """The routes that describe the service and its health."""

    def __init__(
        self, servers: Sequence[LlamaServer], offers: Offers, *, key_required: bool
    ) -> None:
        self._servers = servers
        self._offers = offers
        self._key_required = key_required

    async def health(self, request: Request) -> Response:
        """Return whether the models' servers are alive, without asking them: they may be busy."""
        if any(server.process.poll() is not None for server in self._servers):
            return json_response({"status": "failed", "message": "the model's server died"}, 503)
        first = self._servers[0]
        return json_response(
            {
                "status": "ok",
                "stage": first.model,
                "key_required": self._key_required,
                "engine": first.engine,
                "context": first.limits.context,
                "slots": first.limits.slots,
                "threads": first.limits.threads,
            }
        )

    async def models(self, request: Request) -> Response:
        """Return the list of models."""
        return json_response({"object": "list", "data": self._offers.cards()})

    async def model(self, request: Request) -> Response:
        """Return a model by its name."""
        offer = self._offers.named(request.path_params["id"])
        offer.served.require_name(request.path_params["id"])
        return json_response(offer.card)
