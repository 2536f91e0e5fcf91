"""The command: ask a faulty endpoint at several concurrencies, print what came and how quickly."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.generate.endpoint import FAULTS, LATENCY
from llmpipe.backends.openai.chat import ChatClient, ChatRequest
from llmpipe.backends.openai.journal import Journal

LIMIT = 0.9
"""The share of concurrency ÷ latency that must be reached after convergence."""
TIMEOUT = 2.0
"""Seconds until a request without an answer is sent again."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came at one concurrency."""

    concurrency: int
    requests: int
    lost: int
    duplicated: int
    answered_twice: int
    """Replies that the endpoint gave a second time, because the first was lost on the way."""
    per_second: float
    """Replies a second between the first and the last tenth of them."""
    share: float
    """The same, as a share of concurrency ÷ latency."""
    sent_again: int
    """Requests that a second call with the same requests sent."""
    client_cpu_ms: float
    server_cpu_ms: float
    """CPU time of a reply."""
    outcomes: dict[str, int]


def main() -> int:
    """Run the benchmark and return the exit code: 1 where replies are lost or too slow."""
    options = _parse()
    faults = ", ".join(f"{share:.0%} {name}" for name, share in FAULTS)
    load = os.getloadavg()[0]
    print(f"latency {LATENCY * 1000:.0f} ms, {faults}; server and client on the same "
          f"{len(os.sched_getaffinity(0))} cores, load {load:.1f} before\n")  # fmt: skip
    print("| concurrency | requests | lost | duplicated | sent again, cached | replies/s | "
          "of concurrency ÷ latency | CPU ms: client, server |\n|" + "---|" * 8)  # fmt: skip
    results = []
    for concurrency in options.concurrency:
        result = measure(concurrency, options.requests or 150 * concurrency)
        results.append(result)
        print(
            f"| {result.concurrency} | {result.requests} | {result.lost} | {result.duplicated} | "
            f"{result.sent_again} | {result.per_second:.1f} | {result.share:.2f} | "
            f"{result.client_cpu_ms:.2f}, {result.server_cpu_ms:.2f} |",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=2))
    wrong = [r for r in results if r.lost or r.duplicated or r.sent_again]
    slow = [r for r in results if r.share < LIMIT]
    if wrong or (slow and not options.any_speed):
        print(f"\nlost or duplicated at {[r.concurrency for r in wrong]}, "
              f"below {LIMIT} at {[r.concurrency for r in slow]}")  # fmt: skip
        return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--requests", type=int, help="by default, 150 for each place")
    parser.add_argument("--any-speed", action="store_true", help="judge what came alone")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args()


def measure(concurrency: int, count: int) -> Result:
    """Ask ``count`` requests, and the same again."""
    requests = [
        ChatRequest([{"role": "user", "content": f"question {number}"}], 0.7, 64, seed=number)
        for number in range(count)
    ]
    times: list[float] = []
    command = [sys.executable, "-m", "benchmarks.generate.endpoint", str(concurrency)]
    with (
        tempfile.TemporaryDirectory(prefix="llmpipe-bench-") as folder,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server,
        Journal(Path(folder)) as journal,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        with ChatClient(
            url, "m", {"model": "m"}, journal, concurrency, timeout=TIMEOUT,
            on_reply=lambda tokens: times.append(time.monotonic()),
        ) as client:  # fmt: skip
            client.ask([ChatRequest([{"role": "user", "content": "warm up"}], 0, 8, seed=0)])
            times.clear()
            begun = time.process_time()
            replies = client.ask(requests)
            cpu = time.process_time() - begun
            arrived, sent = list(times), client.sent
            again = client.ask(requests)
            sent_again = client.sent - sent
        seen: dict[str, Any] = json.loads(server.communicate("")[0])
    texts = [reply.text for reply in replies if reply.problem is None]
    tenth = count // 10
    rate = (count - 2 * tenth - 1) / (arrived[count - tenth - 1] - arrived[tenth])
    return Result(
        concurrency=concurrency,
        requests=count,
        lost=count - len(texts) + (again != replies),
        duplicated=len(texts) - len(set(texts)),
        answered_twice=seen["answered_twice"],
        per_second=rate,
        share=rate * LATENCY / concurrency,
        sent_again=sent_again,
        client_cpu_ms=1000 * cpu / count,
        server_cpu_ms=1000 * seen["cpu_s"] / count,
        outcomes=seen["outcomes"],
    )


if __name__ == "__main__":
    sys.exit(main())
