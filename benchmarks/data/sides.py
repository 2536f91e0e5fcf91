"""One side of the benchmark, in a process of its own: ``-m benchmarks.data.sides SIDE FILE``.

Both read ShareGPT rows, write `messages`, drop rows without an answer, hold out 2 % and write three
files. llmpipe also removes duplicates, keeps each row's id, and drops rows that give a held-out one
away.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROLES = {"human": "user", "gpt": "assistant"}


def by_llmpipe(file: Path, folder: Path) -> int:
    """Run the stage `format`; return how many rows it wrote."""
    import msgspec

    from llmpipe.contracts import Artifact, StageContext
    from llmpipe.stages.format import Format, FormatConfig

    split = {"eval": 0.01, "test": 0.01}
    config = msgspec.convert({"kind": "format", "data": "d", "split": split}, FormatConfig)
    inputs = {"data": Artifact(file, "records", "", file.name)}
    ctx = StageContext(config, "data", inputs, folder, folder, folder, folder, folder, threads=1)
    kept: Mapping[str, int] = Format.run(ctx).metrics["kept"]
    return sum(kept.values())


def by_datasets(file: Path, folder: Path) -> int:
    """Load, map, filter, split and write with `datasets`; return how many rows it wrote."""
    import datasets

    datasets.disable_progress_bars()
    # A cache of its own: what an earlier run left there would not be worked for again.
    cache = str(folder / "cache")
    rows = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=cache)
    rows = rows.map(_as_messages, remove_columns=rows.column_names)
    rows = rows.filter(_is_answered)
    train = rows.train_test_split(test_size=0.02, seed=0)
    held = train["test"].train_test_split(test_size=0.5, seed=0)
    parts = {"train": train["train"], "eval": held["train"], "test": held["test"]}
    for name, part in parts.items():
        part.to_json(str(folder / f"{name}.jsonl"))
    return sum(len(part) for part in parts.values())


def _as_messages(row: Mapping[str, Any]) -> dict[str, Any]:
    turns = row["conversations"]
    return {"messages": [{"role": ROLES[t["from"]], "content": t["value"]} for t in turns]}


def _is_answered(row: Mapping[str, Any]) -> bool:
    turns = row["messages"]
    return turns[-1]["role"] == "assistant" and all(turn["content"].strip() for turn in turns)


SIDES: Mapping[str, Callable[[Path, Path], int]] = {"llmpipe": by_llmpipe, "datasets": by_datasets}


def main() -> None:
    """Run one side; print its rows, CPU seconds (imports aside) and peak memory as JSON."""
    side, file = SIDES[sys.argv[1]], Path(sys.argv[2])
    # Imported before the clock starts, on both sides.
    if side is by_datasets:
        import datasets  # noqa: F401
    else:
        import llmpipe.stages.format  # noqa: F401
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        before = _cpu()
        rows = side(file, Path(folder))
        seconds = _cpu() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"rows": rows, "cpu_seconds": seconds, "peak_mb": peak}))


def _cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


if __name__ == "__main__":
    main()
