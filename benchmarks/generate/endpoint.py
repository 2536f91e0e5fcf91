"""A loopback endpoint with a latency and faults, as cheap as an endpoint in Python can be.

Run as a process of its own: it prints its address, and what it has seen when its input closes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
from collections import Counter
from typing import Any

LATENCY = 0.05
FAULTS = (("429", 0.05), ("500", 0.02), ("hang", 0.01), ("malformed", 0.01))
"""The share of the requests that end otherwise than by a reply."""


class Faulty:
    """Answers chats. The faults are drawn from a seed, so that runs are alike."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.answers: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.first = self.last = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it closes."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                answer = await self.answer(body)
                if answer is None:
                    await reader.read()  # until the client gives up
                    break
                status, data = answer
                what = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
                writer.write(f"{what}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def answer(self, body: dict[str, Any]) -> tuple[int, bytes] | None:
        """Return the status and the body of an answer; None for no answer."""
        self.first = self.first or time.monotonic()
        fault = self.fault()
        self.outcomes[fault] += 1
        if fault == "hang":
            return None
        if fault != "429":  # who is refused is not served first
            await asyncio.sleep(LATENCY)
        if fault in ("429", "500"):
            return int(fault), json.dumps({"error": {"message": f"HTTP {fault}"}}).encode()
        text = hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest()
        data = json.dumps({
            "id": "1", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop",
                         "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 20, "completion_tokens": 20, "total_tokens": 40},
        }).encode()  # fmt: skip
        if fault == "malformed":
            return 200, data[: len(data) // 2]
        self.answers[body["messages"][-1]["content"]] += 1
        self.last = time.monotonic()
        return 200, data

    def fault(self) -> str:
        """Draw what happens to a request."""
        drawn = self.chance.random()
        for name, share in FAULTS:
            if drawn < share:
                return name
            drawn -= share
        return "reply"

    def seen(self) -> dict[str, Any]:
        """Return what has happened so far."""
        return {
            "outcomes": dict(self.outcomes),
            "answered": len(self.answers),
            "answered_twice": sum(count > 1 for count in self.answers.values()),
            "cpu_s": time.process_time(),
        }


async def _main() -> None:
    endpoint = Faulty(int(sys.argv[1]))
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(json.dumps(endpoint.seen()), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
