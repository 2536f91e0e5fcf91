"""A service over a small index, on a real port, with an endpoint that plays the model."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import uvicorn
from hashed_words import chunk_of, document
from openai_endpoint import Endpoint

from llmpipe.backends.binding import bind, reachable_url
from llmpipe.documents.model import Document, Page
from llmpipe.retrieval.chunks import Chunk
from llmpipe.retrieval.generator import Generator

HOSTILE = "<script>window.acted = 1</script><img src=x onerror='window.acted = 2'>"
"""What would act in a page that let it."""

TEXTS = {
    "kiosk.md": "The kiosk opens at nine in the morning. It closes at eight in the evening.",
    "permits.md": "A building permit is valid for two years. It may be extended once.",
    "rules/dogs & cats#2": "🐕 Dogs must be kept on a lead in all parks. The fine is 60 euros. "
    f"🐈 Cats may roam. {HOSTILE}",
}
BEFORE, PASSAGE, AFTER = "Before. " * 4_000, "The bridge is 41 metres long.", " After." * 4_000
SAYS = "The kiosk opens at nine in the morning [1]."
WHEN = "When does the kiosk open in the morning?"


def collection() -> tuple[list[Document], list[Chunk]]:
    """Return the documents and their chunks; of the long one a stretch in the middle is a chunk."""
    wholes = [
        document(name, text, language="de" if name == "permits.md" else "en")
        for name, text in TEXTS.items()
    ]
    chunks = [chunk_of(whole) for whole in wholes]
    long = document("bridge.pdf", BEFORE + PASSAGE + AFTER, language="en")
    start, end = len(BEFORE), len(BEFORE) + len(PASSAGE)
    pages = (Page(1, 0, start), Page(2, start, len(long.text)))
    wholes.append(msgspec.structs.replace(long, title="The bridge", pages=pages))
    chunks.append(chunk_of(long, start=start, end=end, text=PASSAGE, pages=(2, 2)))
    return wholes, chunks


class Served:
    """A service that is up."""

    def __init__(self, url: str, endpoint: Endpoint, generator: Generator) -> None:
        self.url = url
        self.endpoint = endpoint
        self.generator = generator
        self.http = httpx.Client(base_url=url, timeout=30)

    def ask(self, question: str = WHEN, **fields: Any) -> httpx.Response:
        """Ask a question that nothing was said before."""
        messages = fields.pop("messages", [{"role": "user", "content": question}])
        return self.http.post("/v1/chat/completions", json={"messages": messages, **fields})

    def asked(self) -> list[dict[str, Any]]:
        """Return what the model was asked."""
        return [body for body in self.endpoint.received if "messages" in body]

    def metric(self, line: str) -> float:
        """Return the figure of a line of the metrics, 0 where there is none."""
        lines = self.http.get("/metrics").text.splitlines()
        values = dict(each.rsplit(" ", 1) for each in lines if not each.startswith("#"))
        return float(values.get(line, 0))


def waited(gate: threading.Event | threading.Barrier) -> None:
    """Hold an answer back until the test lets it go."""
    gate.wait(20)


Serve = Callable[..., Served]


@contextlib.contextmanager
def running(service: Any) -> Iterator[str]:
    """Run a service in a thread and return its address."""
    listening = bind("127.0.0.1", 0)
    config = uvicorn.Config(
        service, lifespan="off", log_config=None, http="h11", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield reachable_url(*listening.getsockname()[:2])
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
