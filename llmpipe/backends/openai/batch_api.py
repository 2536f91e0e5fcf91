"""OpenAI's batches: a file of requests, a batch with our name as metadata, files of results."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from llmpipe.backends.openai.batch import BatchRefusedError, Sent
from llmpipe.backends.openai.client import Failure

ENDED = ("completed", "expired", "cancelled")
NAME = "llmpipe"
"""The key of the metadata under which a batch has its name."""
EARLIER = 3600
"""Seconds by which the provider's clock may be behind ours."""


class OpenAIBatches:
    """See `BatchApi`."""

    async def submit(self, api: Any, name: str, bodies: Mapping[str, dict[str, Any]]) -> str:
        url = "/v1/chat/completions"
        lines = (
            {"custom_id": custom_id, "method": "POST", "url": url, "body": _plain(body)}
            for custom_id, body in bodies.items()
        )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        file = await api.files.create(file=(f"{name}.jsonl", text.encode()), purpose="batch")
        batch = await api.batches.create(
            input_file_id=file.id, endpoint=url, completion_window="24h", metadata={NAME: name}
        )
        return str(batch.id)

    async def find(self, api: Any, name: str, sent: Sent) -> str | None:
        async for batch in api.batches.list(limit=100):
            if (batch.metadata or {}).get(NAME) == name:
                return str(batch.id)
            if batch.created_at < sent["since"] - EARLIER:  # the newest come first
                break
        return None

    async def ended(self, api: Any, batch: str) -> bool:
        found = await api.batches.retrieve(batch)
        if found.status == "failed":
            said = "; ".join(
                str(error.message) for error in (found.errors and found.errors.data) or ()
            )
            raise BatchRefusedError(
                f"the provider refuses the batch {batch}: {said or 'without a reason'}",
                hint="nothing of it was paid for: run again to submit its requests in another one, "
                "later if a limit was reached; or change the spec",
            )
        return found.status in ENDED

    async def results(self, api: Any, batch: str) -> AsyncIterator[tuple[str, Any]]:
        from openai.types.chat import ChatCompletion

        found = await api.batches.retrieve(batch)
        for file in (found.output_file_id, found.error_file_id):
            text = (await api.files.content(file)).text if file else ""
            for line in text.splitlines():
                entry = json.loads(line)
                response = entry.get("response") or {}
                if response.get("status_code") == 200:
                    yield entry["custom_id"], ChatCompletion.construct(**response["body"])
                else:
                    yield entry["custom_id"], _failure(entry.get("error"), response)


def _plain(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body as it is sent, without the SDK's own argument."""
    extra = body.get("extra_body", {})
    return {**{name: value for name, value in body.items() if name != "extra_body"}, **extra}


def _failure(error: Any, response: Mapping[str, Any]) -> Failure:
    body = response.get("body") or {}
    detail = str(error or body.get("error") or response)[:300]
    refused = 400 <= response.get("status_code", 0) < 500
    return Failure("refused" if refused else "failed", detail)
