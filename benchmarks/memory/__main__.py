"""The command: run each training on fake tensors and for real, print how far they are apart."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.memory.cases import CASES, document
from benchmarks.memory.published import CARDS, PUBLISHED, Published

LIMIT = 0.005
"""How far an estimate may be from the bytes that torch allocates on a CPU."""
PUBLISHED_LIMIT = 0.10
"""How far it may be from what others have published."""
LIBRARIES = ("axolotl", "torch", "transformers", "peft", "bitsandbytes")


def main() -> int:
    """Run the benchmark and return the exit code: 1 where an estimate is too far off."""
    options = _parse()
    print(", ".join(f"{name} {version(name)}" for name in LIBRARIES), flush=True)
    cases, published = [], []
    print("\n| training | fake, bytes | real, bytes | off | \n|---|--:|--:|--:|", flush=True)
    for name in options.cases or ([] if options.published else CASES):
        cases.append({"case": name, **_in_fork(lambda name=name: _compare(name))})  # type: ignore[misc]
        print(_row(cases[-1]), flush=True)
    if options.published or not options.cases:
        print("\n| published | estimate, GB | published, GB | off |\n|---|--:|--:|--:|", flush=True)
        for known in PUBLISHED:
            published.append(_in_fork(lambda known=known: _hold(known)))  # type: ignore[misc]
            print(_published_row(published[-1]), flush=True)
        wrong, asked = _false_fits(published)
        print(f"\nfits although it does not: {wrong} of {asked}", flush=True)
    if options.json:
        report = {"cases": cases, "published": published}
        options.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return int(any(_too_far(cases, published)))


def _parse() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    arguments.add_argument("--cases", nargs="+", choices=list(CASES), metavar="CASE")
    arguments.add_argument("--published", action="store_true", help="only what others published")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    return arguments.parse_args()


def _compare(name: str) -> dict[str, Any]:
    """Run a case on fake tensors, then for real."""
    from benchmarks.memory.allocations import allocated
    from llmpipe.estimate.worker import measure

    model, settings = CASES[name]
    asked = _asked(model, settings, cuda=False)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        peak = measure(asked, Path(one))["peak"]
        return {"fake": sum(peak.values()), "real": allocated(asked, Path(other)), "parts": peak}


def _hold(known: Published) -> dict[str, Any]:
    """Estimate a training of which others have published the memory."""
    from llmpipe.contracts import Hardware
    from llmpipe.estimate.memory import memory_of
    from llmpipe.estimate.worker import measure

    asked = _asked(known.model, known.settings, cuda=True)
    with tempfile.TemporaryDirectory() as folder:
        answer = measure(asked, Path(folder))
    memory = memory_of(answer, asked["document"], Hardware("cuda", known.bytes, 1))
    parts = {**memory.parts, **known.extra()}
    total = sum(parts.values())
    return {"name": known.name, "estimate": total, "published": known.bytes, "parts": parts}


def _asked(model: Mapping[str, Any], settings: Mapping[str, Any], *, cuda: bool) -> dict[str, Any]:
    capability = {"bf16": True, "fp8": False, "n_gpu": 1, "n_node": 1}
    capability["compute_capability"] = "sm_80"
    return {
        "document": document(settings),
        "model": dict(model),
        "gguf": None,
        "cuda": cuda,
        "capabilities": capability,
    }


def _in_fork(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do work in a process of its own: a case changes the libraries."""
    import llmpipe.estimate.build
    import llmpipe.estimate.step  # noqa: F401

    sys.stdout.flush()
    reader, writer = os.pipe()
    fork = os.fork()
    if fork == 0:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        with os.fdopen(writer, "w") as pipe:
            pipe.write(json.dumps(work()))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(fork, 0)
    found: dict[str, Any] = json.loads(text)
    return found


def _row(case: Mapping[str, Any]) -> str:
    off = case["fake"] / case["real"] - 1
    return f"| {case['case']} | {case['fake']:,} | {case['real']:,} | {off:+.3%} |"


def _published_row(known: Mapping[str, Any]) -> str:
    off = known["estimate"] / known["published"] - 1
    sizes = f"{known['estimate'] / 1e9:.1f} | {known['published'] / 1e9:.1f}"
    return f"| {known['name']} | {sizes} | {off:+.1%} |"


def _false_fits(published: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Count the cards that are said to hold a training and do not, of all that are too small."""
    too_small = [
        (p, card * 1e9) for p in published for card in CARDS if card * 1e9 < p["published"]
    ]
    return sum(p["estimate"] <= size for p, size in too_small), len(too_small)


def _too_far(cases: list[dict[str, Any]], published: list[dict[str, Any]]) -> Iterator[bool]:
    yield from (abs(case["fake"] / case["real"] - 1) > LIMIT for case in cases)
    for known in published:
        yield abs(known["estimate"] / known["published"] - 1) > PUBLISHED_LIMIT


if __name__ == "__main__":
    sys.exit(main())
