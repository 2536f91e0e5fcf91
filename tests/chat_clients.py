"""What tests of the client of chats share: a client with a journal, requests, and errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openai_endpoint import Answer

from llmpipe.backends.openai.chat import ChatClient, ChatRequest
from llmpipe.backends.openai.journal import Journal


@contextmanager
def client_for(url: str, folder: Path, **options: Any) -> Iterator[ChatClient]:
    """Open a client with a journal in ``folder``."""
    options = {"concurrency": 4, "identity": {"model": "m"}, "local": True, **options}
    with Journal(folder) as journal, ChatClient(url, "m", journal=journal, **options) as client:
        yield client


def questions(count: int) -> list[ChatRequest]:
    """Make requests that differ in their text."""
    return [
        ChatRequest([{"role": "user", "content": f"q{i}"}], 0.5, 16, seed=i) for i in range(count)
    ]


def error(status: int, message: str, **fields: object) -> Answer:
    """Return an error in OpenAI's form."""
    return status, {"error": {"message": message, **fields}}, {}
