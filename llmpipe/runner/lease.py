"""Leases: one worker at a time holds the key of a stage, on any machine.

Within a machine, an ``flock`` that the worker and its stage inherit protects a key; the kernel
releases it after a crash. Machines that share a store do not share such locks. Between them, a
lease is a file that is created exclusively. It names its owner, which changes the file every `BEAT`
seconds. A lease that has not changed for `EXPIRY` seconds is taken over. The watching process
measures this by its own clock; clocks of two machines are never compared.

A machine that sleeps for longer than `EXPIRY` loses its leases. It may then finish a stage that
another machine has made as well: the store keeps one of the two complete results.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, NotRequired, TypedDict

import msgspec

from llmpipe.runner.process import host, identity, is_alive, is_here, kill_leftovers
from llmpipe.runner.trees import discard

BEAT = 5.0
"""Seconds between two heartbeats."""

EXPIRY = 30.0
"""Seconds without a heartbeat after which the owner of a lease counts as dead."""

PAUSES = (0.01, 0.25)
"""Seconds between two checks of a lease that another process holds: at first, and later."""


class _Identity(TypedDict):
    """What every `identity` holds."""

    pid: int
    start: str
    boot: str
    run: str


class _Owner(_Identity):
    """What every lease says; early ones name no node, stage and moment."""

    node: NotRequired[str]
    stage: NotRequired[str]
    since: NotRequired[str]
    head: NotRequired[_Identity | None]


_OWNER = msgspec.json.Decoder(_Owner)
"""Made on import, because it takes longer than the rest of a lease."""

Owner = Mapping[str, Any]
"""The worker that holds a lease.

It has its `identity`, the name of its machine (``node``), its ``stage``, ``since``, the identity of
the ``llmpipe run`` that started it (``head``), and its ``beat``.
"""


class Lease:
    """A lease that this process holds."""

    def __init__(self, path: Path, owner: dict[str, Any], *, waited: bool) -> None:
        self.waited = waited
        """Whether another process held it before."""
        self.lost = False
        """Whether another machine took it over because this one did not change it in time."""
        self._path = path
        self._owner = owner

    def beat(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Change the lease so that it does not expire. Also used as a signal handler."""
        with contextlib.suppress(OSError):  # the next beat may succeed
            self.lost = self.lost or not self._is_ours()
            if not self.lost:
                self._owner["beat"] = f"{int(self._owner['beat']) + 1:09d}"
                descriptor = os.open(self._path, os.O_WRONLY)
                try:
                    os.write(descriptor, json.dumps(self._owner).encode())
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def release(self) -> None:
        """Release the key."""
        with contextlib.suppress(OSError):
            if self._is_ours():
                self._path.unlink()

    def _is_ours(self) -> bool:
        owner = read_owner(self._path) or {}
        return all(owner.get(name) == self._owner[name] for name in ("pid", "start", "boot"))


@contextlib.contextmanager
def hold(
    locks: Path,
    leases: Path,
    key: str,
    about: Mapping[str, Any],
    waiting: Callable[[Owner], object],
) -> Iterator[Lease]:
    """Hold the lease on a key.

    A process that waits for the lease can be stopped by a signal. A process that has it ignores
    signals: the worker is stopped through its stage. Processes that a killed worker of this machine
    left running are killed first.

    Args:
        locks: The folder of this machine's locks.
        leases: The folder of all leases.
        key: The key.
        about: What the lease says about its owner besides its identity.
        waiting: Called once with the owner, if there is one to wait for.
    """
    descriptor = os.open(locks / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    path = leases / f"{key}.json"
    try:
        _on_interrupt(signal.SIG_DFL)
        waited = _lock(descriptor, path, waiting)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        owner = {**identity(), "node": platform.node(), **about, "since": since, "beat": "0" * 9}
        waited = _claim(path, owner, waiting) or waited
        _on_interrupt(signal.SIG_IGN)
        lease = Lease(path, owner, waited=waited)
        # A timer, not a thread: the worker forks, and a thread might hold a lock at that moment.
        signal.signal(signal.SIGALRM, lease.beat)
        signal.setitimer(signal.ITIMER_REAL, BEAT, BEAT)
        try:
            yield lease
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            lease.release()
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, waiting: Callable[[Owner], object]) -> bool:
    """Take this machine's lock; return whether another process held it before."""
    waited, pauses = False, _pauses()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = read_owner(path)
            if owner and is_here(owner) and not is_alive(owner):
                kill_leftovers(owner)
            elif owner and not waited:
                waited = True
                waiting(owner)
            time.sleep(next(pauses))
        else:
            return waited


def _claim(path: Path, owner: Owner, waiting: Callable[[Owner], object]) -> bool:
    """Create the lease; return whether another machine held it before.

    This machine's lock is held, so another owner on this machine is dead.
    """
    data = json.dumps(owner).encode()
    waited, pauses, watch = False, _pauses(), Watch(path)
    while not _create(path, data):
        expired, other = watch.expired(), _owner(watch.raw)
        if other and is_here(other):
            kill_leftovers(other)
            _take_away(path, watch.raw)
        elif expired:
            _take_away(path, watch.raw)
        else:
            if other and not waited:
                waited = True
                waiting(other)
            time.sleep(next(pauses))
    return waited


class Watch:
    """Watches a lease for heartbeats."""

    def __init__(self, path: Path) -> None:
        self.raw = _read(path)
        """The content of the lease, or None if there is none."""
        self.changed = False
        """Whether it has changed since the watch began."""
        self._path = path
        self._since = time.monotonic()

    def expired(self) -> bool:
        """Check again; return whether the lease exists and has not changed for `EXPIRY` seconds."""
        raw, now = _read(self._path), time.monotonic()
        if raw != self.raw:
            self.raw, self._since, self.changed = raw, now, True
        return raw is not None and now - self._since >= EXPIRY


def expire(paths: Iterable[Path]) -> Owner | None:
    """Watch other machines' leases until all expire; return an owner that is alive, if any."""
    watches = {path: Watch(path) for path in paths}
    while watches:
        for path, watch in list(watches.items()):
            if watch.expired():
                _take_away(path, watch.raw)
                del watches[path]
            elif watch.raw is None:
                del watches[path]
            elif watch.changed and (owner := _owner(watch.raw)):
                return owner
        time.sleep(PAUSES[1] if watches else 0)
    return None


def read_owner(path: Path | str) -> dict[str, Any] | None:
    """Return the holder of a lease, or None if it is free or just being written."""
    return _owner(_read(path))


def _read(path: Path | str) -> bytes | None:
    """Return what a lease says; None where there is none, nothing where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        return b"" if os.path.lexists(path) else None  # a link that leads nowhere
    except OSError:
        return b""


def _owner(raw: bytes | None) -> dict[str, Any] | None:
    try:
        _OWNER.decode(raw or b"")  # only checked: the rest of a lease is kept as it is
        owner: dict[str, Any] = json.loads(raw or b"")
    except (ValueError, RecursionError):  # those of msgspec are ValueErrors
        return None
    return owner


def _create(path: Path, data: bytes) -> bool:
    """Create a complete lease, unless one exists."""
    temporary = path.with_name(f".{path.name}.{host()}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            return _create_in_place(path, data)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create_in_place(path: Path, data: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    return True


def _take_away(path: Path, seen: bytes | None) -> None:
    """Remove the lease of a dead owner, unless another process has taken it over by now.

    Check and rename are two steps, but the renamed file shows whose it was.
    """
    taken = path.with_name(f".{path.name}.{host()}.{os.getpid()}.dead")
    with contextlib.suppress(FileNotFoundError):
        path.rename(taken)
        if _read(taken) != seen:
            with contextlib.suppress(OSError):
                os.link(taken, path)
        discard(taken)


def _pauses() -> Iterator[float]:
    pause, longest = PAUSES
    while True:
        yield pause
        pause = min(2 * pause, longest)


def _on_interrupt(action: signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, action)
