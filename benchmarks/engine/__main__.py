"""The command: measure llmpipe, and its peers where they are installed, and print the tables."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.engine import tools
from benchmarks.engine.bench import Bench
from benchmarks.engine.chains import CHAINS
from benchmarks.engine.measure import CommandError
from benchmarks.engine.report import print_report


def main() -> int:
    """Run the benchmark and return the exit code."""
    options = _parse()
    every = [tools.llmpipe()]
    if options.peers:
        peers = options.peers.absolute()
        every += [tools.snakemake(peers), tools.dvc(peers)]
    absent = [str(tool.program) for tool in every if not tool.program.exists()]
    if absent:
        print(f"not installed: {', '.join(absent)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="llmpipe-bench-") as temporary:
        folder = options.workspace.absolute() if options.workspace else Path(temporary)
        bench = Bench(folder, every, options.stages, options.repeat, options.limit)
        try:
            print_report(bench, options.files)
        except CommandError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--peers", type=Path, help="a virtual environment with DVC and Snakemake")
    parser.add_argument(
        "--stages", type=_stages, default=1000, help=f"of the graph; a multiple of {CHAINS}"
    )
    parser.add_argument("--files", type=int, default=100_000, help="small files in one folder")
    parser.add_argument(
        "--repeat", type=int, default=5, help="how often what is short is measured, for medians"
    )
    parser.add_argument(
        "--limit", type=float, default=1800.0, help="seconds after which a command is stopped"
    )
    parser.add_argument(
        "--workspace", type=Path, help="a new folder to work in, and to keep (default: none kept)"
    )
    return parser.parse_args()


def _stages(text: str) -> int:
    count = int(text)
    if count < CHAINS or count % CHAINS:
        raise argparse.ArgumentTypeError(f"a multiple of {CHAINS} is needed, not {text}")
    return count


if __name__ == "__main__":
    sys.exit(main())
