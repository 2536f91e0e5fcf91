"""What streams of text from a model have in common: how they are stopped and what they cost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator, Iterable, Iterator

import msgspec

from llmpipe.backends.reasoning import Reply, reply_of


class Usage(msgspec.Struct, frozen=True):
    """What an answer took. Tokens are None where the model's server does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    truncated: bool = False
    """Whether the answer ends because there was no room for more of it."""
    unfinished: bool = False
    """Whether the model stopped, or was cut, inside its reasoning, so that there is no answer."""


class Thought(msgspec.Struct, frozen=True):
    """A piece of what the model thinks before it answers; it is no part of the answer."""

    text: str


Piece = str | Thought | Usage
"""A piece of the answer, one of the reasoning before it, or what both took."""

Pieces = Generator[Piece, None, None]
"""The pieces of a text as they are written, then what it took. To close it ends the work."""


def whole(pieces: Iterable[Piece]) -> Reply:
    """Return what all the pieces of a stream make together."""
    answer, reasoning, usage = "", "", Usage()
    for piece in pieces:
        if isinstance(piece, Usage):
            usage = piece
        elif isinstance(piece, Thought):
            reasoning += piece.text
        else:
            answer += piece
    return reply_of(answer, reasoning, unfinished=usage.unfinished, truncated=usage.truncated)


class CancelledError(ConnectionAbortedError):
    """An answer is no longer wanted."""


class Cancellation:
    """Lets one thread stop the answer that another one is waiting for.

    Whoever waits does so at a socket; `cancel` shuts it down, which wakes the waiting thread and
    tells the server at the other end to stop computing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether the answer is no longer wanted."""
        return self._cancelled

    def check(self) -> None:
        """Raise `CancelledError` where the answer is no longer wanted."""
        if self._cancelled:
            raise CancelledError("the answer is no longer wanted")

    def cancel(self) -> None:
        """Stop what is under way, and whatever would begin later."""
        with self._lock:
            self._cancelled = True
            for each in self._sockets:
                _shut_down(each)

    @contextlib.contextmanager
    def watching(self, connected: socket.socket) -> Iterator[None]:
        """Have `cancel` shut a socket down for as long as the block lasts."""
        with self._lock:
            self._sockets.add(connected)
            if self._cancelled:
                _shut_down(connected)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(connected)


def _shut_down(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):  # the other end was quicker
        connected.shutdown(socket.SHUT_RDWR)
