"""Send requests to llama.cpp's server from the event loop, and read its replies as they arrive.

Every request has its own connection. Leaving the block closes the connection, which stops
llama.cpp's computation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import h11

READ = 65_536
"""The number of bytes to read at once."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The address and the key of llama.cpp's server."""

    host: str
    port: int
    key: str

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[Reply]:
        """Send a request and yield its reply, which stays open during the block.

        Raises:
            OSError: The server does not listen, or the connection broke before the reply began.
        """
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            connection = h11.Connection(h11.CLIENT)
            for event in self._request(path, body):
                writer.write(connection.send(event) or b"")
            await writer.drain()
            yield await Reply.begin(connection, reader)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _request(self, path: str, body: bytes) -> tuple[h11.Event, ...]:
        headers = {
            "Host": f"{self.host}:{self.port}",
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
        }
        head = h11.Request(method="POST", target=path, headers=list(headers.items()))
        return head, h11.Data(body), h11.EndOfMessage()


class Reply:
    """A reply whose head has arrived."""

    def __init__(
        self, connection: h11.Connection, reader: asyncio.StreamReader, head: h11.Response
    ) -> None:
        self._connection = connection
        self._reader = reader
        self.status = head.status_code
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        self.media_type = headers.get("content-type", "application/json")

    @classmethod
    async def begin(cls, connection: h11.Connection, reader: asyncio.StreamReader) -> Reply:
        """Wait for the head of a reply.

        Raises:
            ConnectionError: The connection broke before it arrived.
        """
        head = await _next(connection, reader)
        if not isinstance(head, h11.Response):
            raise ConnectionError("llama.cpp hung up before it replied")
        return cls(connection, reader, head)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the parts of the body as they arrive.

        Raises:
            ConnectionError: The connection broke before the end.
        """
        while True:
            match await _next(self._connection, self._reader):
                case h11.Data(data=data):
                    yield bytes(data)
                case h11.EndOfMessage():
                    return
                case _:
                    raise ConnectionError("llama.cpp hung up in the middle of a reply")

    async def body(self) -> bytes:
        """Return the whole body."""
        return b"".join([part async for part in self.parts()])


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    """Return the next event of a reply, skipping informational responses (1xx)."""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(READ))
            elif not isinstance(event, h11.InformationalResponse):
                return event
    except h11.RemoteProtocolError as error:  # it ended too early
        raise ConnectionError(f"llama.cpp broke off: {error}") from error
