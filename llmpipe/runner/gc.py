"""Free what nobody needs any more.

A store serves every spec whose home it is. Needed are the artifacts that the lock files of those
specs name, those of their stages' last runs, those of the most recent runs, and whatever came into
the store since the first of these began: a worker whose head was killed may have made it, and a
`pull` is no run. The same goes for what a stage left to go on from. Replies that were paid for
stay whatever happens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmpipe.canonical import digest
from llmpipe.runner.disk import writing
from llmpipe.runner.history import read_run
from llmpipe.runner.lockfile import locked_keys
from llmpipe.runner.store import Store
from llmpipe.runner.trees import entries, remove_tree

KEEP_RUNS = 10
"""Runs whose artifacts and logs are kept unless another number is asked for."""

_RUN = re.compile(r"(\d{8}-\d{6})-[0-9a-f]{4,6}")


@dataclass(slots=True)
class Garbage:
    """What can be freed: paths by what they are, and their bytes in all."""

    objects: list[Path]
    keys: list[Path]
    work: list[Path]
    runs: list[Path]
    size: int

    def paths(self) -> Iterator[Path]:
        """Yield every path, an artifact only after the records that name it."""
        yield from (*self.keys, *self.work, *self.runs, *self.objects)


def find_garbage(store: Store, keep_runs: int = KEEP_RUNS) -> Garbage:
    """Find what no lock file, no stage's last run and none of the latest runs needs.

    The caller holds the store alone.

    Raises:
        SpecError: a lock file cannot be understood, so that nobody knows what it needs.
    """
    runs = sorted(path for path in store.runs.iterdir() if _RUN.fullmatch(path.name))
    old, recent = runs[:-keep_runs], runs[-keep_runs:]
    since = min(map(_begun, recent), default=0.0)
    needed = {*locked_keys(store.lock_files()), *_run_keys(recent), *_last_keys(store)}
    keys: list[Path] = []
    objects: set[str] = set()
    for path in store.keys.iterdir():
        record = store.record(path.stem) if path.suffix == ".json" else None
        if record and (record.key in needed or path.stat().st_mtime >= since):
            objects |= {output.object for output in record.outputs.values()}
        else:
            keys.append(path)
    unnamed = [path for path in store.objects.iterdir() if path.name not in objects]
    work = [path for path in _entries(store.work) if path.stat().st_mtime < since]
    # Half-written, and their writers are gone: the store is ours.
    work += [*store.tmp.iterdir(), *(p for p in store.tmp.parent.iterdir() if p != store.tmp)]
    size = sum(map(_size, (*keys, *work, *old, *unnamed)))
    return Garbage(unnamed, keys, work, old, size)


def free(garbage: Garbage, store: Store) -> None:
    """Remove what was found; whoever stops this halfway leaves a whole store behind.

    Raises:
        StoreError: something cannot be removed.
    """
    with writing(store.home):
        for path in garbage.paths():
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink()


def _begun(run: Path) -> float:
    """Return when a run began; its name says it."""
    found = _RUN.fullmatch(run.name)
    assert found is not None
    return datetime.strptime(found[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()


def _run_keys(runs: Iterable[Path]) -> Iterator[str]:
    for folder in runs:
        record = read_run(folder)
        if record is not None:  # else it was killed: its stages' last runs say what it made
            yield from (stage["key"] for stage in record["stages"].values() if stage["key"])


def _last_keys(store: Store) -> Iterator[str]:
    for path in store.latest.glob("*/*.json"):
        try:
            yield digest(json.loads(path.read_bytes()))
        except (OSError, ValueError):
            continue


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.lstat().st_size
    found = (entry for entry in entries(path) if not entry.is_dir(follow_symlinks=False))
    return sum(entry.stat(follow_symlinks=False).st_size for entry in found)
