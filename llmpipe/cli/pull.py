"""``llmpipe pull``: pull artifacts from the remote store."""

from __future__ import annotations

from llmpipe.api.remote import Moved, RemoteStore
from llmpipe.cli.remote import transfer

WORDS: dict[Moved, str] = {
    "moved": "pulled",
    "there": "here already",
    "missing": "not there",
}


def main(argv: list[str]) -> int:
    """Run the command."""
    description = "Fetch up-to-date artifacts that only the remote store has; nothing is run."
    return transfer(argv, "pull", description, RemoteStore.pull, WORDS)
