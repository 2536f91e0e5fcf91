"""Free what nobody needs any more.

A store serves every spec whose home it is. Needed are the artifacts that the lock files of those
specs name, those of their stages' last runs, and those of the most recent runs; and what a stage
left to go on from, unless it is older than all of these runs. Replies that were paid for stay
whatever happens.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.canonical import digest
from llmpipe.runner.lockfile import locked_keys
from llmpipe.runner.store import KeyRecord, Store

KEEP_RUNS = 10
"""Runs whose artifacts and logs are kept unless another number is asked for."""


@dataclass(slots=True)
class Garbage:
    """What can be freed: paths by what they are, and their bytes in all."""

    objects: list[Path]
    keys: list[Path]
    work: list[Path]
    runs: list[Path]
    size: int

    def paths(self) -> Iterator[Path]:
        """Give every path, an artifact only after the records that name it."""
        yield from (*self.keys, *self.work, *self.runs, *self.objects)


def find_garbage(store: Store, keep_runs: int = KEEP_RUNS) -> Garbage:
    """Find what no lock file, no stage's last run and none of the latest runs needs."""
    runs = sorted(path for path in store.runs.iterdir() if path.is_dir())
    old, recent = runs[: max(0, len(runs) - keep_runs)], runs[max(0, len(runs) - keep_runs) :]
    needed = {*_run_keys(recent), *_last_keys(store), *locked_keys(store.lock_files())}
    keys: list[Path] = []
    objects: set[str] = set()
    for path in store.keys.glob("*.json"):
        record = store.record(path.stem)
        if path.stem in needed and record is not None:
            objects |= _objects(record)
        else:
            keys.append(path)
    unnamed = [path for path in store.objects.iterdir() if path.name not in objects]
    since = min((run.stat().st_mtime for run in recent), default=0.0)
    work = [path for path in _entries(store.work) if path.stat().st_mtime < since]
    size = sum(_size(path) for path in (*unnamed, *work, *old))
    return Garbage(unnamed, keys, work, old, size)


def free(garbage: Garbage) -> None:
    """Remove what was found; whoever stops this halfway leaves a whole store behind."""
    for path in garbage.paths():
        if path.is_dir():
            _make_removable(path)
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _run_keys(runs: Iterable[Path]) -> Iterator[str]:
    for folder in runs:
        try:
            record: dict[str, Any] = msgspec.json.decode((folder / "run.json").read_bytes())
        except (OSError, msgspec.MsgspecError):
            continue  # it was killed: its stages' last runs say what it made
        yield from (stage["key"] for stage in record["stages"].values() if stage["key"])


def _last_keys(store: Store) -> Iterator[str]:
    for path in store.latest.glob("*/*.json"):
        try:
            yield digest(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue


def _objects(record: KeyRecord) -> set[str]:
    return {output.object for output in record.outputs.values()}


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    files = (Path(root, name) for root, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files)


def _make_removable(folder: Path) -> None:
    for root, _, _ in os.walk(folder):
        Path(root).chmod(0o755)
