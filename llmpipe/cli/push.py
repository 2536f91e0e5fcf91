"""``llmpipe push``: bring what is up to date to the remote store."""

from __future__ import annotations

from llmpipe.cli.remote import Transfer, transfer

WORDS = {True: "pushed", False: "there already", None: "not up to date here"}


def main(argv: list[str]) -> int:
    """Run the command."""
    description = "Bring what is up to date to the remote store, to share it."
    return transfer(argv, "push", description, _push, WORDS)


def _push(item: Transfer) -> bool | None:
    if item.record is None:
        return None
    return item.remote.push(item.record, item.store, item.count)
