"""The command: make ShareGPT rows, run both sides in turn, print rows a CPU second and memory."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.data.sides import SIDES

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def main() -> int:
    """Run the benchmark; return 0."""
    options = _parse()
    with tempfile.TemporaryDirectory(prefix="llmpipe-bench-") as folder:
        file = Path(folder) / "rows.jsonl"
        with file.open("w") as out:
            out.writelines(json.dumps(row) + "\n" for row in sharegpt(options.rows))
        # In turn, so that what else the machine does meets both.
        runs = [{name: _measured(name, file) for name in SIDES} for _ in range(options.repeat)]
    print(
        f"{options.rows:,} ShareGPT rows, median of {options.repeat} runs of each side, in turn\n"
    )
    print("| | rows per CPU second | peak memory |\n|---|---|---|")
    for name in SIDES:
        found = [run[name] for run in runs]
        rate = median(each["rows"] / each["cpu_seconds"] for each in found)
        print(f"| {name} | {rate:,.0f} | {max(each['peak_mb'] for each in found)} MB |")
    ratio = median(run["datasets"]["cpu_seconds"] / run["llmpipe"]["cpu_seconds"] for run in runs)
    print(f"\nllmpipe takes {1 / ratio:.2f} times the CPU of datasets: {ratio:.2f} times the rows")
    if options.json:
        report = {"rows": options.rows, "ratio": ratio, "runs": runs}
        options.json.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return 0


def sharegpt(rows: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield conversations of one to three questions, about 1.3 kB each, of made-up words."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(LETTERS, k=draw.randint(2, 9))) for _ in range(20_000)]
    for number in range(rows):
        turns = []
        for _ in range(draw.choice([1, 1, 2, 3])):
            question = " ".join(draw.choices(words, k=draw.randint(5, 40)))
            answer = " ".join(draw.choices(words, k=draw.randint(20, 120)))
            turns.append({"from": "human", "value": f"{question}?"})
            turns.append({"from": "gpt", "value": f"{answer}."})
        yield {"id": f"row-{number}", "conversations": turns}


def _measured(side: str, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.data.sides", side, str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each side")
    parser.add_argument("--json", type=Path, help="write all figures to a file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
