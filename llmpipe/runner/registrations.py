"""Which specs use a store: where their lock files are, so that `gc` keeps what these name.

Each has a file in ``projects/``, named by the digest of its content.
"""

from __future__ import annotations

from pathlib import Path

from llmpipe.canonical import digest
from llmpipe.errors import StoreError
from llmpipe.runner.disk import atomic_write, writing
from llmpipe.runner.store import Store


def registration(store: Store, lock: Path) -> Path:
    """Return the file that remembers where a lock file is."""
    return store.projects / digest(str(lock))[:16]


def register(store: Store, lock: Path) -> None:
    """Remember where the lock file of a spec is that uses the store."""
    entry = registration(store, lock)
    if _registered(entry) != lock:
        with writing(store.home):
            store.projects.mkdir(exist_ok=True)
            atomic_write(entry, f"{lock}\n", durable=False)


def lock_files(store: Store) -> list[Path]:
    """Return the lock files of all specs that have used the store; they need not exist.

    Raises:
        StoreError: It is not known where one is.
    """
    if not store.projects.exists():
        return []
    try:
        entries = sorted(p for p in store.projects.iterdir() if not p.name.startswith("."))
    except OSError as error:
        raise StoreError(f"{store.projects} cannot be read: {error.strerror}") from None
    found = []
    for entry in entries:
        lock = _registered(entry)
        if lock is None or registration(store, lock) != entry:
            raise StoreError(
                f"{entry} is damaged: it does not say which spec uses the store",
                hint="remove it, and run the specs that use this store",
            )
        found.append(lock)
    return found


def _registered(entry: Path) -> Path | None:
    """Return the lock file that an entry remembers, or None where it remembers none."""
    try:
        return Path(entry.read_text("utf-8").rstrip("\n"))
    except (OSError, ValueError):
        return None
