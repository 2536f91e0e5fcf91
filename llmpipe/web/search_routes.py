"""The routes that read from the index: searches and documents."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from llmpipe.backends.streaming import Cancellation
from llmpipe.errors import StageError
from llmpipe.retrieval.answer import Answerer
from llmpipe.retrieval.filters import FilterError
from llmpipe.retrieval.search import Mode
from llmpipe.web.chat import stripped
from llmpipe.web.errors import ApiError, json_response, search_failed
from llmpipe.web.library import Excerpt, Library, excerpt
from llmpipe.web.queueing import Line, in_turn, unless_gone
from llmpipe.web.request_parsing import read_json, read_place

PLACES = 4
WAITING = 256

T = TypeVar("T")


class SearchRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search. ``mode`` is the stage's by default, and the stage's filters always apply."""

    query: str
    k: Annotated[int, Meta(ge=1, le=100)] = 10
    mode: Mode | None = None
    filters: dict[str, Any] = {}


class SearchRoutes:
    """Answers searches and requests for documents, a limited number at a time."""

    def __init__(self, answerer: Answerer, library: Library) -> None:
        self._answerer = answerer
        self._library = library
        self._line = Line(PLACES, WAITING)
        by_words = answerer.settings.mode == "bm25"  # then there is no embedder
        self.modes: tuple[Mode, ...] = ("bm25",) if by_words else answerer.retriever.modes

    async def search(self, request: Request) -> Response:
        """Return the passages that match a query best."""
        asked = await read_json(request, SearchRequest)
        query = stripped(asked.query)
        mode = asked.mode or self._answerer.settings.mode
        if mode not in self.modes:
            known = ", ".join(self.modes)
            message = f"this index is not searched by {mode}, but by: {known}"
            raise ApiError(400, "unsupported", message)
        try:
            filters = self._library.narrowed(asked.filters)
        except FilterError as error:
            raise self._unusable(error) from None

        def find(cancellation: Cancellation) -> list[dict[str, Any]]:
            found = self._answerer.search(
                query, k=asked.k, mode=mode, filters=filters, cancellation=cancellation
            )
            return self._library.hits(found)

        return json_response({"hits": await self._looked_up(request, find)})

    async def document(self, request: Request) -> Response:
        """Return a span of a document with the text around it."""
        name: str = request.path_params["id"]
        start = read_place(request, "start", 0)
        end = read_place(request, "end", start)

        def read(cancellation: Cancellation) -> Excerpt | None:
            document = self._library.document(name)
            return excerpt(document, start, end) if document else None

        try:
            found = await self._looked_up(request, read)
        except ValueError as error:
            reason = "the document does not have this span"
            raise ApiError(400, "invalid_place", str(error), reason=reason) from None
        if found is None:
            message = f"there is no document {name!r}"
            raise ApiError(404, "not_found", message, reason="there is no such document")
        return json_response(found)

    async def _looked_up(self, request: Request, work: Callable[[Cancellation], T]) -> T:
        """Run work on the index when its turn in the line comes."""
        cancellation = Cancellation()
        try:
            turn = in_turn(self._line, partial(work, cancellation))
            return await unless_gone(request.receive, turn)
        except FilterError as error:
            raise self._unusable(error) from None
        except StageError as error:
            raise search_failed(error) from None
        finally:
            cancellation.cancel()

    def _unusable(self, error: FilterError) -> ApiError:
        message = self._library.message_of(error)
        return ApiError(400, "invalid_filter", message, reason="a filter cannot be used")
