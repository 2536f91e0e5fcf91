"""Anthropic's batches. They have no name: the ids of their requests carry ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from llmpipe.backends.openai.batch import Sent
from llmpipe.backends.openai.client import Failure

EARLIER = 3600
"""Seconds by which the provider's clock may be behind ours."""
PAUSE = 10.0
"""Seconds between two looks at a batch that may be ours."""


class AnthropicBatches:
    """See `BatchApi`."""

    async def submit(self, api: Any, name: str, bodies: Mapping[str, dict[str, Any]]) -> str:
        requests = []
        for custom_id, body in bodies.items():
            params = {key: value for key, value in body.items() if key != "extra_body"}
            params |= body.get("extra_body", {})
            requests.append({"custom_id": custom_id, "params": params})
        batch = await api.messages.batches.create(requests=requests)
        return str(batch.id)

    async def find(self, api: Any, name: str, sent: Sent) -> str | None:
        """See `BatchApi.find`. A batch that may be ours is awaited: only its results have ids."""
        async for batch in api.messages.batches.list(limit=100):
            if batch.created_at.timestamp() < sent["since"] - EARLIER:  # the newest come first
                break
            counts = batch.request_counts.model_dump()
            if sum(counts.values()) != sent["count"]:
                continue
            while not await self.ended(api, batch.id):
                await asyncio.sleep(PAUSE)
            async for custom_id, _ in self.results(api, batch.id):
                if custom_id.startswith(f"{name}-"):
                    return str(batch.id)
                break
        return None

    async def ended(self, api: Any, batch: str) -> bool:
        found = await api.messages.batches.retrieve(batch)
        return bool(found.processing_status == "ended")

    async def results(self, api: Any, batch: str) -> AsyncIterator[tuple[str, Any]]:
        async for entry in await api.messages.batches.results(batch):
            result = entry.result
            if result.type == "succeeded":
                yield entry.custom_id, result.message
            elif result.type == "errored":
                error = result.error.error
                refused = error.type == "invalid_request_error"
                yield entry.custom_id, Failure("refused" if refused else "failed", error.message)
            else:
                yield entry.custom_id, Failure("failed", f"the request is {result.type}")
