"""``llmpipe push``: push up-to-date artifacts to the remote store."""

from __future__ import annotations

from llmpipe.cli.remote import Moved, Transfer, transfer

WORDS: dict[Moved, str] = {
    "moved": "pushed",
    "there": "there already",
    "kept": "kept although it has changed: not pushed",
    "nothing": "not up to date here",
}


def main(argv: list[str]) -> int:
    """Run the command."""
    description = "Push up-to-date artifacts to the remote store, to share them."
    return transfer(argv, "push", description, _push, WORDS)


def _push(item: Transfer) -> Moved:
    if item.record is None:
        return "nothing"
    if item.record.kept_from is not None:  # others would expect it to be what its key says
        return "kept"
    return "moved" if item.remote.push(item.record, item.store, item.count) else "there"
