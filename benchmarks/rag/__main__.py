"""The command: run the measurements, print tables as they are done, and write all as JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.rag.contender import ContenderError
from benchmarks.rag.corpus import package_folder
from benchmarks.rag.results import load_average
from benchmarks.rag.setting import EMBEDDER, Setting

MEASUREMENTS = ("embedding", "vector_search", "update", "latency", "load", "peers")
PACKAGES = ("torch", "sentence-transformers", "faiss-cpu", "xllamacpp")


def main() -> int:
    """Run the benchmark and return the exit code: 1 where a measurement came to nothing."""
    options = _parse()
    if options.peers and not (options.peers / "bin" / "python").exists():
        print(f"not installed: {options.peers}/bin/python", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="llmpipe-bench-rag-") as temporary:
        folder = options.workspace.absolute() if options.workspace else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        conditions = _conditions(options)
        _say(_told(conditions))
        results: dict[str, Any] = {"conditions": conditions}
        try:
            for name in options.only:
                results[name] = _measure(name, _setting(options, folder))
        except ContenderError as error:
            print(error, file=sys.stderr)
            return 1
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    return 0


def _measure(name: str, setting: Setting) -> dict[str, Any]:
    """Run one measurement, print it, and return its figures with the machine's load."""
    before = load_average()
    measured = import_module(f"benchmarks.rag.{name}").measure(setting)
    after = load_average()
    _say(f"\n{measured.text()}\n\nLoad before and after: {before:g}, {after:g}")
    figures: dict[str, Any] = measured.as_json()
    return {**figures, "load_average": [before, after]}


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rag", description=__doc__)
    add = parser.add_argument
    add("--only", type=_names, default=MEASUREMENTS, help=f"some of: {','.join(MEASUREMENTS)}")
    add("--peers", type=Path, help="a virtual environment with the peers")
    add("--json", type=Path, help="write all figures to this file")
    add("--workspace", type=Path, help="a new folder to work in, and to keep (default: none kept)")
    add("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each contender")
    add("--rounds", type=int, default=5, help="how often what is short is measured, for medians")
    add("--texts", type=int, default=512, help="passages to embed for the throughput")
    add("--vectors", type=int, default=200_000, help="synthetic vectors to index")
    add("--documents", type=int, default=2000, help="documents of the update and of the peers")
    add("--chunks", type=int, default=10_000, help="at least so many are asked, alone and in load")
    add("--queries", type=int, default=200, help="questions that are searched for")
    add("--answers", type=int, default=8, help="questions that the model answers")
    add("--clients", type=int, default=8, help="at once, under load")
    add("--searches", type=int, default=50, help="of each client")
    add("--asked", type=int, default=6, help="answers that each client asks for")
    add("--reranker", type=Path, help="the folder of a cross-encoder, to be timed too")
    add("--int8", action="store_true", help="embed by the int8 ONNX file: update, latency, load")
    return parser.parse_args()


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in MEASUREMENTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no measurement {unknown[0]}")
    return names


def _setting(options: argparse.Namespace, folder: Path) -> Setting:
    given = vars(options) | {"folder": folder, "model": package_folder(EMBEDDER) / "model"}
    for path in ("peers", "reranker"):
        given[path] = given[path] and given[path].absolute()
    return Setting(**{name: given[name] for name in Setting.__dataclass_fields__})


def _conditions(options: argparse.Namespace) -> dict[str, Any]:
    """Say when, where and with what the figures are taken."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "llmpipe": version("llmpipe"),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": options.threads,
        "rounds": options.rounds,
    }


def _told(conditions: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in conditions["packages"].items())
    return (
        "{date}; llmpipe {llmpipe}, {packages}; Python {python}; {cores} cores, {processor}; "
        "{threads} threads each; medians of {rounds}"
    ).format(**{**conditions, "packages": packages})


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
