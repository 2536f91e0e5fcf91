"""Ask llama.cpp's server from the event loop, and read its replies piece by piece as they come.

Every request has a connection of its own. To leave the block closes it, which is how llama.cpp is
told to stop computing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import h11

READ = 65_536
"""Bytes that are read at once."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where llama.cpp listens, and the key that it wants."""

    host: str
    port: int
    key: str

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[Reply]:
        """Send a request and give its reply for as long as the block lasts.

        Raises:
            OSError: nobody listens, or the connection broke before the reply began.
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
    """A reply whose head has come."""

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
            ConnectionError: the connection broke before it came.
        """
        head = await _next(connection, reader)
        if not isinstance(head, h11.Response):
            raise ConnectionError("llama.cpp hung up before it replied")
        return cls(connection, reader, head)

    async def parts(self) -> AsyncIterator[bytes]:
        """Give the body, each part as soon as it has come.

        Raises:
            ConnectionError: the connection broke before the end.
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
        """Give the whole body."""
        return b"".join([part async for part in self.parts()])


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    """Give the next event of a reply, but for news that are no reply yet (1xx)."""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(READ))
            elif not isinstance(event, h11.InformationalResponse):
                return event
    except h11.RemoteProtocolError as error:  # it ended before it was done
        raise ConnectionError(f"llama.cpp broke off: {error}") from error
