"""Limit the connections of a service by the number of files that its process may open.

At the limit, the oldest connection that has not sent a whole request is closed: it is idle, or its
client stopped in the middle of a request. If all connections are being answered, the new one is
refused. This is logged once.
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
"""The number of connections that may wait to be accepted. asyncio accepts all of them at once."""
KEPT = 16
"""The number of files that a service may open besides its connections."""
PER_CONNECTION = 2
"""The number of files per connection: its own, and one to the model's server."""


@dataclass(slots=True)
class Bounds:
    """The maximum number of open connections, and of connections that wait to be accepted."""

    connections: int
    backlog: int
    told: bool = False

    def tell(self) -> None:
        """Log once that there are too many connections."""
        if not self.told:
            log.warning(
                "%d connections are open, as many as the limit of open files allows (ulimit -n): "
                "idle ones are closed, or new ones refused; this is logged once",
                self.connections,
            )
        self.told = True

    def hear(self, record: logging.LogRecord) -> bool:
        """Filter asyncio's log, so that it reports a refused connection only once."""
        if "out of system resource" not in record.getMessage():
            return True
        self.tell()
        return False


def bounds() -> Bounds:
    """Return the bounds that the limit of open files allows."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = MOST_CONNECTIONS * 4 if limit == resource.RLIM_INFINITY else limit
    room = limit - sum(1 for _ in Path("/proc/self/fd").iterdir()) - KEPT
    backlog = max(1, min(BACKLOG, room // 4))
    return Bounds(max(1, min(MOST_CONNECTIONS, (room - backlog) // PER_CONNECTION)), backlog)


class Connection(H11Protocol):
    """A connection that closes an idle one when there are too many, or is refused."""

    def __init__(self, *args: Any, bounds: Bounds, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._bounds = bounds
        self._number = 0

    def connection_made(self, transport: Any) -> None:
        """Accept the connection; see the module's docstring."""
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

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP.

        They may belong to the body of a request that is being answered. That answer is given up,
        because nothing can be sent after the refusal.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # a response has begun
            self.transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection is about to end."""
        return self.transport.is_closing()

    def is_awaited(self) -> bool:
        """Return whether the client has yet to send a request, or the rest of one."""
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
