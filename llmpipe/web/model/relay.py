"""Pass a request on to llama.cpp, and stream its reply to the caller.

Replies are edited in four ways: calls after the first are removed if the request does not allow
them (`one_call`), and so is how much of a prompt was cached (`cached`); a response that was cut is
marked as incomplete (`unfinished`); the name of an adapter is put in (`renamed`).

When a caller disconnects, the connection to llama.cpp is closed at once, which frees the slot.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from llmpipe.web.errors import ApiError, event_of
from llmpipe.web.model.cached import WithoutCached
from llmpipe.web.model.edits import Edit, EditedStream, edited
from llmpipe.web.model.one_call import OneCall
from llmpipe.web.model.renamed import Renamed
from llmpipe.web.model.unfinished import Unfinished
from llmpipe.web.model.upstream import Reply, Upstream
from llmpipe.web.queueing import Line, unless_gone

STREAM = "text/event-stream"
RESPONSES = "/v1/responses"
CONTEXT = "exceed_context_size_error"
"""llama.cpp's error type for a prompt that does not fit in the context."""


@dataclass(frozen=True, slots=True)
class Relay:
    """Sends requests to llama.cpp and returns its replies."""

    upstream: Upstream
    line: Line
    """The slots. Generations wait for one here, so that a caller can disconnect while waiting."""
    model: Path
    stage: str
    context: int
    """The tokens of a whole conversation."""
    tells_cached: bool = False
    """Whether callers can see how much of a prompt was cached."""
    adapter: str | None = None
    """The adapter's name, if the model is one; llama.cpp calls it by its base."""
    program: str = "llama.cpp"
    """What computes, for messages."""

    def answer(self, path: str, fields: Mapping[str, Any], *, takes_slot: bool) -> Response:
        """Return a response that asks llama.cpp when it is sent."""
        edits: list[Edit] = [WithoutCached()] if takes_slot and not self.tells_cached else []
        if fields.get("tools") and fields.get("parallel_tool_calls") is False:
            edits.append(OneCall())
        if path == RESPONSES:
            edits.append(Unfinished(fields.get("max_output_tokens"), self.context))
        if self.adapter is not None:
            edits.append(Renamed(self.adapter))
        return _Relayed(self, path, msgspec.json.encode(fields), takes_slot, edits)

    def unreachable(self) -> ApiError:
        """Return the error for a server that does not answer."""
        return ApiError(503, "model_unavailable", "the model's server does not answer")

    def refusal(self, path: str, status: int, body: bytes) -> ApiError:
        """Return llama.cpp's refusal as an API error, without paths of this machine."""
        try:
            error = json.loads(body)["error"]
            kind, said = str(error.get("type")), str(error["message"])
        except (ValueError, KeyError, TypeError, AttributeError):
            error, kind, said = {}, "", f"HTTP {status}"
        reason = f"{self.program} refused {path}"
        if kind == CONTEXT:
            told = (
                f"the prompt takes {error.get('n_prompt_tokens')} tokens, and the context of the"
                f" model holds {error.get('n_ctx')}: shorten it, or raise `context` of the stage"
            )
            return ApiError(400, "context_length_exceeded", told, reason=reason)
        for file in (self.model, self.model.resolve()):
            for place in (file, file.parent):
                said = said.replace(os.fspath(place), self.stage)
        code = "invalid_request" if status < 500 else "model_error"
        return ApiError(status, code, said, reason=reason)


class _Relayed(Response):
    """A reply of llama.cpp, requested when the response is sent."""

    def __init__(
        self, relay: Relay, path: str, body: bytes, takes_slot: bool, edits: Sequence[Edit]
    ) -> None:
        super().__init__()
        self._relay = relay
        self._path = path
        self._asked = body
        self._takes_slot = takes_slot
        self._edits = edits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(ClientDisconnect):  # the client is gone
            response = await unless_gone(receive, self._relayed(send))
            if response is not None:
                await response(scope, receive, send)

    async def _relayed(self, send: Send) -> Response | None:
        """Pass a stream on, or return any other reply as a response."""
        async with contextlib.AsyncExitStack() as held:
            if self._takes_slot:
                await held.enter_async_context(self._relay.line.place())
            try:
                asking = self._relay.upstream.post(self._path, self._asked)
                reply = await held.enter_async_context(asking)
                if reply.status == 200 and reply.media_type.startswith(STREAM):
                    await self._pass_on(reply, send)
                    return None
                body = await reply.body()
            except OSError:
                raise self._relay.unreachable() from None
        if reply.status != 200:
            raise self._relay.refusal(self._path, reply.status, body)
        return Response(edited(body, self._edits), media_type=reply.media_type)

    async def _pass_on(self, reply: Reply, send: Send) -> None:
        """Pass a stream on, part by part. An error is sent as its last event."""
        headers = [(b"content-type", reply.media_type.encode()), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        events = EditedStream(self._edits)
        try:
            async for part in reply.parts():
                told = events.feed(part)
                await send({"type": "http.response.body", "body": told, "more_body": True})
            last = events.close()
        except OSError:
            error = self._relay.unreachable()
            error.note()
            last = event_of(error.data())
        await send({"type": "http.response.body", "body": last, "more_body": False})
