"""Services to call, over one small index."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hashed_words import HashedWords, write_embeddings
from openai_endpoint import Endpoint
from town_service import SAYS, Serve, Served, collection, running

from llmpipe.backends.embedders.openai import EndpointEmbedder
from llmpipe.retrieval.answer import Answerer, AnswerSettings
from llmpipe.retrieval.embedder import Embedder
from llmpipe.retrieval.embedders import OpenedEmbedder
from llmpipe.retrieval.generator import GeneratorConfig, open_generator
from llmpipe.retrieval.index import IndexSettings, build_index
from llmpipe.retrieval.search import Retriever
from llmpipe.retrieval.threshold import Threshold
from llmpipe.web.middleware import Admission
from llmpipe.web.service import Identity, make_service

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    import chromium

    with chromium.launched() as browser:
        yield browser


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open an empty page in a window of some width, in the light or the dark scheme."""
    with contextlib.ExitStack() as windows:

        def open_window(width: int = 1280, scheme: Any = "light") -> Page:
            window = browser.new_context(
                viewport={"width": width, "height": 800},
                color_scheme=scheme,
                reduced_motion="reduce",
            )
            windows.callback(window.close)
            page = window.new_page()
            page.set_default_timeout(30_000)
            return page

        yield open_window


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of the documents."""
    folder = tmp_path_factory.mktemp("web")
    documents, chunks = collection()
    build_index(
        write_embeddings(folder / "embeddings", documents, chunks),
        folder / "index",
        IndexSettings(),
    )
    return folder / "index"


@pytest.fixture
def serve(index: Path) -> Iterator[Serve]:
    """Start a service; with ``asks_embedder`` its endpoint embeds, too. It ends with the test."""
    with contextlib.ExitStack() as stack:

        def start(
            *,
            admission: Admission | None = None,
            threshold: float = -1,
            slots: int = 2,
            waiting: int = 64,
            asks_embedder: bool = False,
            **settings: Any,
        ) -> Served:
            endpoint = stack.enter_context(Endpoint())
            endpoint.reply = lambda body: (SAYS, "stop")
            config = GeneratorConfig(
                engine="openai", model="m", base_url=endpoint.url, slots=slots, max_tokens=64
            )
            opening = open_generator(config, None, threads=1, reveal=str)
            generator = stack.enter_context(opening)
            embedder: Embedder = HashedWords()
            if asks_embedder:
                endpoint.embed = lambda text: HashedWords().embed_query(text).tolist()
                asked = stack.enter_context(EndpointEmbedder(endpoint.url, "m"))
                embedder = OpenedEmbedder(embedder.identity, asked)
            answerer = Answerer(
                Retriever.open(index, embedder),
                generator,
                AnswerSettings(**settings),
                Threshold("given", threshold),
            )
            url = stack.enter_context(
                running(
                    make_service(
                        answerer,
                        Identity("town-docs", "answers"),
                        admission or Admission(),
                        slots=slots,
                        waiting=waiting,
                    )
                )
            )
            served = Served(url, endpoint, generator)
            stack.callback(served.http.close)
            return served

        yield start
