"""Free what is not needed any more.

A store serves several specs. It keeps the artifacts that their lock files name, those of the last
run of each stage, those of the most recent runs, and everything that was added since the first of
these runs began: it may come from a `pull`, or from a worker whose run was killed. Data for
resuming a stage is kept by the same rules. Replies of paid services are always kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmpipe.canonical import digest
from llmpipe.runner.disk import read_json, writing
from llmpipe.runner.history import read_run
from llmpipe.runner.lockfile import locked_keys
from llmpipe.runner.registrations import lock_files
from llmpipe.runner.store import Store
from llmpipe.runner.trees import entries, remove_tree

KEEP_RUNS = 10
"""Number of runs whose artifacts and logs are kept by default."""

_RUN = re.compile(r"(\d{8}-\d{6})-[0-9a-f]{4,6}")


@dataclass(slots=True)
class Garbage:
    """What can be freed: paths by category, and their total bytes."""

    objects: list[Path]
    keys: list[Path]
    work: list[Path]
    runs: list[Path]
    size: int

    def paths(self) -> Iterator[Path]:
        """Yield every path. An artifact comes after the records that name it."""
        yield from (*self.keys, *self.work, *self.runs, *self.objects)


def find_garbage(store: Store, keep_runs: int = KEEP_RUNS) -> Garbage:
    """Find what no lock file, no last run of a stage and no recent run needs.

    The caller must hold the store alone.

    Raises:
        SpecError: A lock file cannot be read, so it is unknown what it needs.
        StoreError: The place of a lock file is unknown.
    """
    runs = sorted(path for path in store.runs.iterdir() if _RUN.fullmatch(path.name))
    old, recent = runs[:-keep_runs], runs[-keep_runs:]
    since = min(map(_begun, recent), default=0.0)
    needed = {*locked_keys(lock_files(store)), *_run_keys(recent), *_last_keys(store)}
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
    # Half-written, and the writers have gone: this process holds the store alone.
    work += [*store.tmp.iterdir(), *(p for p in store.tmp.parent.iterdir() if p != store.tmp)]
    size = sum(map(_size, (*keys, *work, *old, *unnamed)))
    return Garbage(unnamed, keys, work, old, size)


def free(garbage: Garbage, store: Store) -> None:
    """Remove the garbage. An interruption leaves a valid store.

    Raises:
        StoreError: Something cannot be removed.
    """
    with writing(store.home):
        for path in garbage.paths():
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink()


def _begun(run: Path) -> float:
    """Return when a run began, from its name."""
    found = _RUN.fullmatch(run.name)
    assert found is not None
    return datetime.strptime(found[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC).timestamp()


def _run_keys(runs: Iterable[Path]) -> Iterator[str]:
    for folder in runs:
        record = read_run(folder)
        if record is not None:  # else it was killed: the last runs of its stages name what it made
            yield from (stage["key"] for stage in record["stages"].values() if stage["key"])


def _last_keys(store: Store) -> Iterator[str]:
    for path in store.latest.glob("*/*.json"):
        try:
            yield digest(read_json(path))
        except (ValueError, RecursionError):
            continue


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.lstat().st_size
    found = (entry for entry in entries(path) if not entry.is_dir(follow_symlinks=False))
    return sum(entry.stat(follow_symlinks=False).st_size for entry in found)
