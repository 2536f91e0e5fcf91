"""Ways to call a service, and to read what it says."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
from town_service import WHEN, Served


def client(served: Served, key: str = "none") -> openai.OpenAI:
    """OpenAI's own client."""
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0)


def question(text: str = WHEN) -> list[Any]:
    """A conversation of one question."""
    return [{"role": "user", "content": text}]


def error_of(response: httpx.Response) -> tuple[int, str, str]:
    """Return the status, type and code of an error in OpenAI's shape."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "code"}
    assert error["message"]
    return response.status_code, error["type"], error["code"]


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Return whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
