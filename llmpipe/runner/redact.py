"""Remove secrets from what a stage prints: its log, its events, its answer.

A secret is searched as it is, line by line if it has several, and in JSON's spelling.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from typing import Any

from llmpipe.contracts import SECRET
from llmpipe.errors import as_text

WELL_KNOWN = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY")
"""Environment variables that are redacted even if no spec names them."""

REDACTED = "[redacted]"

SHORTEST = 4
"""Shorter values are not treated as secrets: they would be found everywhere."""


def secret_values(config: Any) -> list[str]:
    """Return the values of the secrets that a config names, and of the well-known ones."""
    names = {*WELL_KNOWN, *re.findall(SECRET, json.dumps(config))}
    return [value for value in (os.environ.get(name) for name in names) if value]


class Redactor:
    """Replaces secrets. ``longest`` is the length in bytes of the longest text that it searches."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for form in _forms(value) if len(form) >= SHORTEST}
        self._forms = sorted(forms, key=len, reverse=True)
        self._encoded = [form.encode("utf-8", "surrogateescape") for form in self._forms]
        self.longest = max(map(len, self._encoded), default=0)

    def in_bytes(self, data: bytes) -> bytes:
        """Return bytes without secrets."""
        for form in self._encoded:
            data = data.replace(form, REDACTED.encode())
        return data

    def in_json(self, value: Any) -> Any:
        """Return JSON data without secrets, and without undecodable text."""
        if isinstance(value, str):
            for form in self._forms:
                value = value.replace(form, REDACTED)
            return as_text(value)
        if isinstance(value, list):
            return [self.in_json(item) for item in value]
        if isinstance(value, dict):
            return {key: self.in_json(item) for key, item in value.items()}
        return value


def _forms(value: str) -> Iterable[str]:
    decoded = os.fsencode(value).decode("utf-8", "replace")  # as logs show undecodable bytes
    for form in (value, decoded, *(line.strip() for line in value.splitlines())):
        yield form
        yield json.dumps(form)[1:-1]
