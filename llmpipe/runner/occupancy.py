"""Who uses a store: the lock that all share, or one holds alone, and the workers that live on.

A worker goes on when the run that started it was killed: what it finishes is there for the next
one. One that cannot finish would hold its stage, and the store, for ever. So whoever has to wait
says for which process, on what it works and since when, and how to end it; nobody ends it unasked.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmpipe.errors import StoreError
from llmpipe.runner.disk import writing
from llmpipe.runner.messages import owner_text
from llmpipe.runner.process import command_of, is_alive, users_of

Owner = Mapping[str, Any]
"""The worker that holds a key: its `identity`, ``stage``, ``since`` and the identity of its
``head``, the ``llmpipe run`` that started it."""


@contextlib.contextmanager
def shared(home: Path, heal: Callable[[], object]) -> Iterator[None]:
    """Hold a store's shared lock; who finds itself alone first heals what crashes left.

    While somebody holds the store alone it waits, and says for whom.

    Raises:
        StoreError: the store cannot be written.
    """
    descriptor = _open(home)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)  # a holder that was killed left its name
            heal()
        _share(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(home: Path, purpose: str) -> Iterator[None]:
    """Hold a store so that nobody else uses it.

    Raises:
        StoreError: somebody does; it says who.
    """
    descriptor = _open(home)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"{home} is in use: {purpose} must wait until no run is going on",
                hint="\n".join(_users(home)) or None,
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} (llmpipe {purpose})".encode(), 0)
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def living_workers(home: Path) -> Iterator[Owner]:
    """Yield the owner of every key of a store on which a worker is at work."""
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(home / "store" / "locks") as found,
    ):
        for entry in found:
            if entry.stat().st_size and (owner := read_owner(entry.path)) and is_alive(owner):
                yield owner


def read_owner(lock: str | int) -> dict[str, Any] | None:
    """Return who holds a key, from its lock's path or descriptor."""
    try:
        text = os.pread(lock, 4096, 0) if isinstance(lock, int) else Path(lock).read_bytes()
        owner: dict[str, Any] = json.loads(text)
    except (OSError, ValueError):
        return None  # nobody's, or just being written
    return owner


def told(owner: Owner) -> dict[str, Any]:
    """Return what is told of an owner: whether it is ``orphaned`` in place of who its head is."""
    head = owner.get("head")
    shown = {name: value for name, value in owner.items() if name != "head"}
    return {**shown, "orphaned": head is not None and not is_alive(head)}


def orphans(home: Path) -> list[str]:
    """Return a line about every worker at work whose run was killed."""
    found = map(told, living_workers(home))
    return [owner_text(owner) for owner in found if owner["orphaned"]]


def _users(home: Path) -> Iterator[str]:
    """Yield a line about every process that uses a store; those of other people are not seen."""
    workers = {owner["pid"]: told(owner) for owner in living_workers(home)}
    for worker in workers.values():
        yield owner_text(worker)
    groups = workers.keys()
    for pid, group in users_of(home / "lock"):
        if pid != os.getpid() and group not in groups:
            yield f"process {pid}: {command_of(pid)}"


def _open(home: Path) -> int:
    with writing(home):
        return os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o644)


def _share(descriptor: int) -> None:
    """Take the shared lock; while another holds it alone, say who that is and wait."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 100, 0).decode("utf-8", "replace")
        if holder:  # else it is a run that clears what crashes left, which takes a moment
            print(f"waits for process {holder}, which holds the store", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
