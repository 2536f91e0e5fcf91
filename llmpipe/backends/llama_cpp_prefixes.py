"""Compute the beginning that many prompts share once, and let each of them go on from there.

llama.cpp's own reuse goes on from what its slot happens to hold: a prompt is then parted where it
stops being like the one before it, and its rounding hangs on the order of the requests. Here every
beginning is computed alone, from nothing, and kept in a file; each request restores it into a slot
of its own. So a reply depends on its prompt alone, in whatever order, and after a restart, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from llmpipe.backends.llama_cpp_client import LlamaServer
from llmpipe.errors import StageError


class Prefixes:
    """The beginnings of prompts that a server has computed. To be used in one event loop."""

    def __init__(self, server: LlamaServer, slots: int) -> None:
        """Keep them in the ``slots_folder`` that the server was started with."""
        self._server = server
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(slots):
            self._free.put_nowait(slot)
        self._locks: dict[str, asyncio.Lock] = {}
        self._kept: set[str] = set()

    @asynccontextmanager
    async def begun(self, messages: Sequence[Mapping[str, str]]) -> AsyncIterator[dict[str, Any]]:
        """Hold a slot that has read ``messages``; give the fields that send a request to it.

        The request's own messages begin with these. Where the server refuses them (they exceed the
        context, or the model's state cannot be kept), the request computes its whole prompt.
        """
        slot = await self._free.get()
        try:
            reused = bool(messages) and await self._prepare(slot, messages)
            yield {"id_slot": slot, "cache_prompt": reused}
        finally:
            self._free.put_nowait(slot)

    async def _prepare(self, slot: int, messages: Sequence[Mapping[str, str]]) -> bool:
        name = hashlib.sha256(json.dumps(list(messages)).encode()).hexdigest()[:16]
        async with self._locks.setdefault(name, asyncio.Lock()):
            try:
                if name not in self._kept:
                    await asyncio.to_thread(self._server.keep_prefix, messages, slot, name)
                    self._kept.add(name)
                else:
                    await asyncio.to_thread(self._server.restore_prefix, slot, name)
            except StageError:
                return False
        return True
