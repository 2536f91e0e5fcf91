"""Edit llama.cpp's replies before a caller reads them: whole replies, and events of streams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

END = b"\n\n"
"""The end of an event of a stream."""


class Edit(Protocol):
    """An edit of one reply. It may keep state between the events of a stream."""

    @property
    def marks(self) -> Sequence[bytes]:
        """Return texts; every event that may need the edit contains one of them."""

    def of_reply(self, reply: dict[str, Any]) -> dict[str, Any]:
        """Return a whole reply, edited."""

    def of_event(self, told: dict[str, Any]) -> dict[str, Any] | None:
        """Return the data of an event, edited; None if nothing is left."""


def edited(body: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a whole reply with all edits applied, or the same bytes if there are none."""
    reply = json.loads(body) if edits else None
    if not isinstance(reply, dict):
        return body
    for edit in edits:
        reply = edit.of_reply(reply)
    return json.dumps(reply, ensure_ascii=False).encode()


class EditedStream:
    """Edits the events of a stream, whose parts can end anywhere. Other lines stay unchanged."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self._edits = edits
        self._held = b""

    def feed(self, part: bytes) -> bytes:
        """Add a part, and return the events that are now complete."""
        if not self._edits:
            return part
        *whole, self._held = (self._held + part).split(END)
        return b"".join(event + END for event in map(self._kept, whole) if event)

    def close(self) -> bytes:
        """Return the rest after the last complete event."""
        return self._held

    def _kept(self, event: bytes) -> bytes:
        """Return an event, edited; empty if nothing is left."""
        lines = event.split(b"\n")
        for at, line in enumerate(lines):
            wanted = [edit for edit in self._edits if any(mark in line for mark in edit.marks)]
            if not wanted or not line.startswith(b"data: {"):
                continue
            told: dict[str, Any] | None = json.loads(line[6:])
            kind = (told or {}).get("type")
            for edit in wanted:
                told = None if told is None else edit.of_event(told)
            if told is None:
                return b""
            lines[at] = b"data: " + json.dumps(told, ensure_ascii=False).encode()
            if told.get("type") != kind:
                name, changed = f"event: {kind}".encode(), f"event: {told['type']}".encode()
                lines = [changed if each == name else each for each in lines]
        return b"\n".join(lines)
