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

    def of_event(self, told: dict[str, Any]) -> Sequence[dict[str, Any]]:
        """Return what takes the place of an event: usually one event, edited; or none, or more."""


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
        for line in lines:
            wanted = [edit for edit in self._edits if any(mark in line for mark in edit.marks)]
            if not wanted or not line.startswith(b"data: {"):
                continue
            told: list[dict[str, Any]] = [json.loads(line[6:])]
            for edit in wanted:
                told = [each for one in told for each in edit.of_event(one)]
            if told == [json.loads(line[6:])]:  # nothing changed; an edit may change it in place
                return event
            named = any(each.startswith(b"event: ") for each in lines)
            return END.join(_written(each, named=named) for each in told)
        return event


def _written(told: dict[str, Any], *, named: bool) -> bytes:
    name = f"event: {told.get('type')}\n".encode() if named else b""
    return name + b"data: " + json.dumps(told, ensure_ascii=False).encode()
