"""Bound the connections of a service by the files that its process may open.

Where there are too many, the oldest of those that a request is still awaited from is closed: idle
ones, and callers that stopped in the middle of a request. Where all are being answered, the new one
is turned away. Either is logged once.
"""

from __future__ import annotations

import logging
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llmpipe.web.errors import json_response
from llmpipe.web.queueing import RETRY_AFTER, busy

log = logging.getLogger("llmpipe.web")

MOST_CONNECTIONS = 4096
BACKLOG = 256
"""Connections that may wait to be taken. asyncio takes all that wait in one go."""
KEPT = 16
"""Files beside the connections that a service may open at any time."""
PER_CONNECTION = 2
"""Files that one takes: its own, and one to the model's server."""


@dataclass(slots=True)
class Bounds:
    """How many connections there may be, and how many may wait to be taken."""

    connections: int
    backlog: int
    told: bool = False

    def tell(self) -> None:
        """Log, the first time, that there are too many."""
        if not self.told:
            log.warning(
                "%d connections are open, as many as the limit of open files leaves room for "
                "(ulimit -n): idle ones are closed, or new ones turned away; this is logged once",
                self.connections,
            )
        self.told = True

    def hear(self, record: logging.LogRecord) -> bool:
        """Filter asyncio's log: that a connection cannot be taken is told once, not each time."""
        if "out of system resource" not in record.getMessage():
            return True
        self.tell()
        return False


def bounds() -> Bounds:
    """Return what the limit of open files leaves room for."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MOST_CONNECTIONS * 4 if limit == resource.RLIM_INFINITY else limit
    room = limit - sum(1 for _ in Path("/proc/self/fd").iterdir()) - KEPT
    backlog = max(1, min(BACKLOG, room // 4))
    return Bounds(max(1, min(MOST_CONNECTIONS, (room - backlog) // PER_CONNECTION)), backlog)


class Connection(H11Protocol):
    """A connection that makes room for itself, or is turned away."""

    def __init__(self, *args: Any, bounds: Bounds, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds
        self._number = 0

    def connection_made(self, transport: Any) -> None:
        """Take the connection; see the module's docstring."""
        super().connection_made(transport)
        everyone: set[Any] = self.connections
        others = [each for each in everyone if each is not self and not each.is_closing()]
        self._number = 1 + max((each._number for each in others), default=0)
        if len(others) < self._bounds.connections:
            return
        self._bounds.tell()
        awaited = [each for each in others if each.is_awaited()]
        if awaited:
            min(awaited, key=lambda each: each._number).transport.abort()
        else:
            self._turn_away()

    def is_closing(self) -> bool:
        """Tell whether the connection is about to end."""
        return self.transport.is_closing()

    def is_awaited(self) -> bool:
        """Tell whether the caller has yet to send a request, or the rest of one."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def _turn_away(self) -> None:
        error = busy("too many connections are open")
        body = bytes(json_response(error.data(), error.status).body)
        head = (
            f"HTTP/1.1 {error.status} Service Unavailable\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nRetry-After: {RETRY_AFTER}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
