"""The service of a rag stage as one application: its routes, guard and metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from llmpipe.retrieval.answer import Answerer
from llmpipe.web.application import make_application
from llmpipe.web.chat import MOST_TURNS
from llmpipe.web.chat_routes import Answers
from llmpipe.web.errors import ApiError, json_response, require_model
from llmpipe.web.library import Library
from llmpipe.web.metrics import Metrics
from llmpipe.web.middleware import Admission
from llmpipe.web.pages import ANSWERS, page_routes
from llmpipe.web.queueing import Line
from llmpipe.web.search_routes import SearchRoutes

WAITING = 64
"""The number of questions that may wait for a slot of the generator."""


@dataclass(frozen=True, slots=True)
class Identity:
    """How the service identifies itself: the spec's name, and the stage as the model's name.

    ``index_made`` is when the index was made, in seconds since 1970. If it is None, the time of the
    index file is used.
    """

    name: str
    stage: str
    index_made: float | None = None


def make_service(
    answerer: Answerer,
    identity: Identity,
    admission: Admission,
    *,
    slots: int,
    waiting: int = WAITING,
) -> ASGIApp:
    """Return the service as an ASGI application.

    Args:
        answerer: Answers the questions.
        identity: The names of the service.
        admission: Who may call.
        slots: The number of questions that are answered at the same time.
        waiting: The number of questions that may wait for a slot.
    """
    metrics, line = Metrics(), Line(slots, waiting)
    metrics.waiting.set_function(lambda: line.waiting)
    library = Library(answerer.retriever.passages, answerer.settings.filters)
    lookups = SearchRoutes(answerer, library)
    answers = Answers(answerer, identity.stage, library, metrics, line)
    about = _About(answerer, identity, admission, lookups.modes)
    routes = [
        *page_routes(ANSWERS),
        Route("/health", partial(about.health, answers)),
        Route("/metrics", metrics.requests.show),
        Route("/v1/models", about.models),
        Route("/v1/models/{id:path}", about.model),
        Route("/v1/chat/completions", answers.chat, methods=["POST"]),
        Route("/v1/search", lookups.search, methods=["POST"]),
        Route("/v1/documents/{id:path}", lookups.document),
    ]
    return make_application(routes, admission, metrics.requests, open_paths=(*ANSWERS, "/health"))


class _About:
    """The routes that describe the service and its health."""

    def __init__(
        self, answerer: Answerer, identity: Identity, admission: Admission, modes: Sequence[str]
    ) -> None:
        passages = answerer.retriever.passages
        made = identity.index_made
        self._model = {
            "id": identity.stage,
            "object": "model",
            "created": int(answerer.retriever.index_written if made is None else made),
            "owned_by": "llmpipe",
            "llmpipe": {
                "documents": len(passages.document_ids()),
                "chunks": passages.count,
                "modes": modes,
                "most_turns": MOST_TURNS,
            },
        }
        self._identity = identity
        self._key_required = admission.api_key is not None

    async def health(self, answers: Answers, request: Request) -> Response:
        try:
            answers.require_generator()
        except ApiError as error:
            return json_response({"status": "failed", "message": error.message}, error.status)
        return json_response(
            {
                "status": "ok",
                "name": self._identity.name,
                "stage": self._identity.stage,
                "key_required": self._key_required,
            }
        )

    async def models(self, request: Request) -> Response:
        return json_response({"object": "list", "data": [self._model]})

    async def model(self, request: Request) -> Response:
        require_model(request.path_params["id"], self._identity.stage)
        return json_response(self._model)
