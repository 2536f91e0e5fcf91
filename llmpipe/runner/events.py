"""Record a run as it happens: one JSON object per line in ``events.jsonl``.

Every event has ``v`` (the version of the layout), ``time`` (UTC), ``event`` and, if it concerns one
stage, ``stage``. Log lines stay in the logs of the stages. Memory readings are not recorded; the
last event of a stage has its peak.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

VERSION = 1

Event = Mapping[str, Any]
Listener = Callable[[Event], None]

NOT_RECORDED = frozenset({"log", "usage"})


class EventLog:
    """Appends events to a file and passes each one to the listeners."""

    def __init__(self, path: Path, listeners: list[Listener]) -> None:
        self._stream = path.open("ab")
        self._listeners = listeners

    def emit(self, event: str, **fields: Any) -> None:
        """Record one event and show it."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        record = {"v": VERSION, "time": moment, "event": event, **fields}
        if event not in NOT_RECORDED:
            with contextlib.suppress(OSError):  # the disk is full: running stages may still finish
                self._stream.write(msgspec.json.encode(record) + b"\n")
                self._stream.flush()
        for listener in list(self._listeners):
            try:
                listener(record)
            except OSError:  # the reader of its output has gone: the run continues
                self._listeners.remove(listener)

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._stream.close()
