"""``llmpipe push``: push up-to-date artifacts to the remote store."""

from __future__ import annotations

from llmpipe.api.remote import Moved, RemoteStore
from llmpipe.cli.remote import transfer

WORDS: dict[Moved, str] = {
    "moved": "pushed",
    "there": "there already",
    "kept": "kept although it has changed: not pushed",
    "missing": "not up to date here",
}


def main(argv: list[str]) -> int:
    """Run the command."""
    description = "Push up-to-date artifacts to the remote store, to share them."
    return transfer(argv, "push", description, RemoteStore.push, WORDS)
