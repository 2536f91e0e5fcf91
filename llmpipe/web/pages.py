"""The files of the pages that the services show in a browser. The pages share a template."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from llmpipe.templates import environment

SHARED: Mapping[str, str] = {"/page.css": "page.css", "/calls.js": "calls.js"}
"""The looks of both pages, and how they call their service."""
ANSWERS: Mapping[str, str] = {"/": "answers.html", "/page.js": "page.js", **SHARED}
"""The page of a rag stage: its files by path."""
MODEL: Mapping[str, str] = {"/": "model.html", "/model_page.js": "model_page.js", **SHARED}
"""The page of a served model: its files by path."""
_MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def page_routes(page: Mapping[str, str]) -> list[Route]:
    """Return the routes of a page."""
    return [Route(path, partial(_file, name)) for path, name in page.items()]


async def _file(name: str, request: Request) -> Response:
    content = (
        _rendered(name) if name.endswith(".html") else (files(__package__) / name).read_bytes()
    )
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
    return Response(content, media_type=media_type, headers={"Cache-Control": "no-cache"})


@cache
def _rendered(name: str) -> bytes:
    return environment(str(__package__)).get_template(name).render().encode()
