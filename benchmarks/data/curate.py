"""Near-duplicates and decontamination beside datasketch: ``python -m benchmarks.data.curate``.

Each side runs in a process of its own, in turn, on the same rows: 60 made-up words each, a tenth of
them with a near-duplicate. datasketch sketches the words of each row (`update_batch`, 128 values)
and looks it up in its LSH index; it verifies nothing. llmpipe runs the step `near_duplicates`:
templates, sketches, bands, and every candidate verified. Reading and writing rows counts on neither
side. The step `decontaminate` runs against 1,000 held-out rows. The whole stage with both steps
gives the peak of memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MOST_BY_DATASKETCH = 20_000
"""Rows that datasketch gets; its time a row does not depend on their number."""


def made_rows(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield conversations of 60 words; after one in ten comes a near-duplicate of it."""
    draw = random.Random(seed)
    known = ["".join(draw.choices(LETTERS, k=draw.randint(2, 9))) for _ in range(50_000)]
    while count > 0:
        words = draw.choices(known, k=60)
        for copy in range(1 + (draw.random() < 0.1)):
            for place in draw.sample(range(60), draw.randint(0, 6) if copy else 0):
                words[place] = draw.choice(known)
            question, answer = " ".join(words[:20]), " ".join(words[20:])
            turns = [("user", question), ("assistant", answer)]
            yield {"messages": [{"role": role, "content": text} for role, text in turns]}
            count -= 1


def by_datasketch(file: Path) -> dict[str, Any]:
    """Sketch and look up rows; return the seconds a row."""
    from datasketch import MinHash, MinHashLSH

    rows = [row["messages"] for row in _read(file)][:MOST_BY_DATASKETCH]
    texts = [" ".join(turn["content"] for turn in turns) for turns in rows]
    before, dropped = _cpu(), 0
    index = MinHashLSH(threshold=0.8, num_perm=128)
    for number, text in enumerate(texts):
        sketch = MinHash(128)
        sketch.update_batch([word.encode() for word in text.lower().split()])
        if index.query(sketch):
            dropped += 1
        else:
            index.insert(number, sketch)
    return {"seconds": _cpu() - before, "rows": len(texts), "dropped": dropped}


def near_duplicates(file: Path) -> dict[str, Any]:
    """Run the step over rows that were read; return the seconds."""
    from llmpipe.stages.curate import near_duplicates as step
    from llmpipe.stages.curate.steps import NearDuplicates

    return _timed(file, lambda pool, held: step.run(NearDuplicates(), pool))


def decontaminate(file: Path) -> dict[str, Any]:
    """Run the step over rows that were read, with 1,000 held-out ones; return the seconds."""
    from llmpipe.contracts import Artifact
    from llmpipe.stages.curate import decontaminate as step
    from llmpipe.stages.curate.steps import Decontaminate

    def run(pool: Any, held: Path) -> Any:
        config = Decontaminate(against=("held",))
        return step.run(config, pool, {"held": Artifact(held, "records", "", "held")}, ())

    return _timed(file, run)


def whole_stage(file: Path) -> dict[str, Any]:
    """Run the stage with both steps; return the seconds."""
    from llmpipe.stages.curate import Curate
    from llmpipe.testing import run_stage

    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        held = _held_out(Path(folder))
        steps = [{"step": "near_duplicates"}, {"step": "decontaminate", "against": [str(held)]}]
        before = _cpu()
        done = run_stage(Curate, {"data": str(file), "steps": steps}, Path(folder))
        seconds = _cpu() - before
    return {"seconds": seconds, "rows": done.metrics["in"], "dropped": done.metrics["dropped"]}


SIDES: Mapping[str, Callable[[Path], dict[str, Any]]] = {
    "datasketch": by_datasketch,
    "near_duplicates": near_duplicates,
    "decontaminate": decontaminate,
    "whole stage": whole_stage,
}


def _timed(file: Path, step: Callable[[Any, Path], Any]) -> dict[str, Any]:
    from llmpipe.stages.curate.pool import Pool
    from llmpipe.stages.curate.rows import Rows

    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        work = Path(folder)
        rows = Rows(work)
        for line, row in enumerate(_read(file), 1):
            rows.add(row, 0, line)
        rows.store()
        with (work / "rejects").open("wb") as rejects:
            pool = Pool(rows, ["data"], rejects, work, kept=array("Q", range(len(rows))))
            held, before = _held_out(work), _cpu()
            step(pool, held)
            seconds = _cpu() - before
    return {"seconds": seconds, "rows": len(rows), "dropped": len(rows) - len(pool.kept)}


def _held_out(folder: Path) -> Path:
    path = folder / "held.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in made_rows(1000, seed=1)))
    return path


def _read(file: Path) -> Iterator[dict[str, Any]]:
    with file.open() as lines:
        yield from map(json.loads, lines)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> int:
    """Run the benchmark; return 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data.curate", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the file")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each side")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        import numpy, regex, rensa  # noqa: E401, F401, I001  before the clock starts
        import datasketch  # noqa: F401

        found = SIDES[options.side](options.file)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({**found, "peak_mb": peak}))
        return 0
    with tempfile.TemporaryDirectory(prefix="llmpipe-bench-") as folder:
        file = Path(folder) / "rows.jsonl"
        with file.open("w") as out:
            out.writelines(json.dumps(row) + "\n" for row in made_rows(options.rows))
        runs = [{side: _measured(side, file) for side in SIDES} for _ in range(options.repeat)]
    print(f"{options.rows:,} rows, median of {options.repeat} runs of each side, in turn\n")
    print("| | rows per CPU second | dropped | peak memory |\n|---|---|---|---|")
    for side in SIDES:
        rate = median(run[side]["rows"] / run[side]["seconds"] for run in runs)
        last = runs[-1][side]
        print(f"| {side} | {rate:,.0f} | {last['dropped']} | {last['peak_mb']} MB |")
    each = [{side: run[side]["seconds"] / run[side]["rows"] for side in SIDES} for run in runs]
    ratio = median(run["datasketch"] / run["near_duplicates"] for run in each)
    print(f"\nnear_duplicates: {ratio:.1f} times the rows of datasketch per CPU second")
    return 0


def _measured(side: str, file: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.data.curate", "--side", side, "--file", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
