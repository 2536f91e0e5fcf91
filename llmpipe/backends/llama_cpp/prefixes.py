"""Compute a prefix that many prompts share only once, and continue each prompt from it.

llama.cpp's own prompt cache continues from whatever its slot contains. A prompt is then split where
it differs from the previous one, so rounding depends on the order of the requests. This module
computes every prefix alone and saves it to a file, and each request restores it into its own slot.
A reply therefore does not depend on earlier requests.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

log = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, str]]


class Prefixes:
    """The prompt prefixes that our own server has computed; for use in one event loop.

    The server must have been started with a ``slots_folder`` and this number of ``slots``.
    """

    def __init__(self, url: str, slots: int) -> None:
        self._url = url
        self._free: asyncio.Queue[int] = asyncio.Queue()
        for slot in range(slots):
            self._free.put_nowait(slot)
        self._locks: dict[str, asyncio.Lock] = {}
        self._kept: set[str] = set()
        self._refused: set[str] = set()

    @asynccontextmanager
    async def begun(self, api: Any, messages: Messages) -> AsyncIterator[dict[str, Any]]:
        """Hold a slot that has read ``messages``, and yield the fields that select the slot.

        ``api`` is an `openai.AsyncOpenAI` of the server. The messages of the request begin with
        these. If the server refuses them (they exceed the context, the disk is full, or the
        model's state cannot be saved), this and all later requests compute whole prompts.
        """
        slot = await self._free.get()
        try:
            reused = bool(messages) and await self._prepare(api, slot, messages)
            yield {"id_slot": slot, "cache_prompt": reused}
        finally:
            self._free.put_nowait(slot)

    async def _prepare(self, api: Any, slot: int, messages: Messages) -> bool:
        from openai import APIError

        name = hashlib.sha256(json.dumps(list(messages)).encode()).hexdigest()[:16]
        async with self._locks.setdefault(name, asyncio.Lock()):
            if name in self._refused:
                return False
            try:
                if name in self._kept:
                    await self._post(api, f"/slots/{slot}?action=restore", {"filename": name})
                else:
                    await self._compute(api, slot, messages)
                    await self._post(api, f"/slots/{slot}?action=save", {"filename": name})
                    self._kept.add(name)
            except APIError as error:
                self._refused.add(name)
                log.warning("a shared prompt prefix is computed again each time: %s", error)
                return False
        return True

    async def _compute(self, api: Any, slot: int, messages: Messages) -> None:
        asked = {"messages": list(messages), "add_generation_prompt": False}
        prompt = (await self._post(api, "/apply-template", asked))["prompt"]
        body = {"prompt": prompt, "n_predict": 0, "cache_prompt": False, "id_slot": slot}
        await self._post(api, "/completion", body)

    async def _post(self, api: Any, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await api.post(self._url + path, cast_to=object, body=body)
        return answer
