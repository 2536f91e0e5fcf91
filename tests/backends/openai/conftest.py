"""What the tests of clients share: pauses between attempts that are short."""

from __future__ import annotations

import pytest

from llmpipe.backends.openai import client as openai_client
from llmpipe.backends.openai import throttle as openai_throttle


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the pauses between attempts short."""
    monkeypatch.setattr(openai_client, "BACK_OFF", (0.01, 0.01, 0.01, 0.01))
    monkeypatch.setattr(openai_throttle, "COOL_DOWN", 0.05)
