"""Types that all streams of generated text share: their pieces, usage and cancellation."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator, Iterable, Iterator

import msgspec

from llmpipe.backends.reasoning import Reply, reply_of


class Usage(msgspec.Struct, frozen=True):
    """The usage of an answer. Tokens are None if the model's server does not report them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    truncated: bool = False
    """Whether a limit cut the answer off."""
    unfinished: bool = False
    """Whether the reply ends inside the reasoning, so there is no answer."""


class Thought(msgspec.Struct, frozen=True):
    """A piece of the reasoning before the answer."""

    text: str


Piece = str | Thought | Usage
"""A piece of the answer, a piece of the reasoning, or the usage of both."""

Pieces = Generator[Piece, None, None]
"""The pieces of a reply as they are generated, then its usage. Closing it stops the work."""


def whole(pieces: Iterable[Piece]) -> Reply:
    """Return the whole reply from the pieces of a stream."""
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
    """The answer was canceled."""


class Cancellation:
    """Lets one thread cancel the answer that another thread waits for.

    The other thread waits at a socket. `cancel` shuts the socket down, which wakes the thread and
    makes the server at the other end stop computing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether the answer was canceled."""
        return self._cancelled

    def check(self) -> None:
        """Raise `CancelledError` if the answer was canceled."""
        if self._cancelled:
            raise CancelledError("the answer was canceled")

    def cancel(self) -> None:
        """Stop the current work, and any work that would begin later."""
        with self._lock:
            self._cancelled = True
            for each in self._sockets:
                _shut_down(each)

    @contextlib.contextmanager
    def watching(self, connected: socket.socket) -> Iterator[None]:
        """Let `cancel` shut a socket down during the block."""
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
    with contextlib.suppress(OSError):  # the other end closed it first
        connected.shutdown(socket.SHUT_RDWR)
