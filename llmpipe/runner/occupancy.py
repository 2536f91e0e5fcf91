"""Who uses a store: its lock, shared or exclusive, and the workers that outlived their runs.

A worker continues after the run that started it was killed; the next run finds what it made. A
worker that cannot finish would hold its stage, and the store, forever. A process that has to wait
therefore prints which process it waits for, what that works on, since when, and how to end it. No
process is ended without being asked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llmpipe.errors import StoreError
from llmpipe.runner.disk import writing
from llmpipe.runner.lease import Owner, expire, read_owner
from llmpipe.runner.messages import owner_text
from llmpipe.runner.process import command_of, is_alive, is_here, users_of


@contextlib.contextmanager
def shared(home: Path, heal: Callable[[], object]) -> Iterator[None]:
    """Hold a store's shared lock. The only holder first cleans up after crashes.

    If a process holds the store alone, this waits and reports it.

    Raises:
        StoreError: The store cannot be written.
    """
    descriptor = _open(home)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)  # a killed holder left its name
            heal()
        _share(descriptor)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(home: Path, purpose: str) -> Iterator[None]:
    """Hold a store exclusively.

    Raises:
        StoreError: Another process uses it; the error names it.
    """
    descriptor = _open(home)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                f"{home} is in use: {purpose} must wait until no run is active",
                hint="\n".join(_users(home)) or None,
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} (llmpipe {purpose})".encode(), 0)
        far = expire(path for path, owner in _leases(home) if not is_here(owner))
        if far is not None:
            what = f"{home} is in use on another machine: {purpose} must wait until it is done"
            raise StoreError(what, hint=owner_text(told(far)))
        yield
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def living_workers(home: Path) -> Iterator[Owner]:
    """Yield the owner of every lease whose worker runs on this machine."""
    for _, owner in _leases(home):
        if is_alive(owner):
            yield owner


def _leases(home: Path) -> Iterator[tuple[Path, Owner]]:
    for path in sorted((home / "store" / "leases").glob("[!.]*.json")):
        if owner := read_owner(path):
            yield path, owner


def told(owner: Owner) -> dict[str, Any]:
    """Return the public facts about an owner.

    ``orphaned`` replaces the identity of its head. ``node`` is included only for another machine,
    whose processes cannot be seen from here.
    """
    head = owner.get("head")
    shown = {name: value for name, value in owner.items() if name not in ("head", "beat")}
    if is_here(owner):
        del shown["node"]
        return {**shown, "orphaned": head is not None and not is_alive(head)}
    return {**shown, "orphaned": False}


def orphans(home: Path) -> list[str]:
    """Return a line about every running worker whose run was killed."""
    found = map(told, living_workers(home))
    return [owner_text(owner) for owner in found if owner["orphaned"]]


def _users(home: Path) -> Iterator[str]:
    """Yield a line about every process of this user that uses a store."""
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
    """Take the shared lock; while another process holds it exclusively, report it and wait."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 100, 0).decode("utf-8", "replace")
        if holder:  # else a run is cleaning up after a crash, which takes a moment
            print(f"waits for process {holder}, which holds the store", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
