"""``llmpipe pull``: pull artifacts from the remote store."""

from __future__ import annotations

from llmpipe.cli.remote import Moved, Transfer, transfer

WORDS: dict[Moved, str] = {
    "moved": "pulled",
    "there": "here already",
    "nothing": "not there",
}


def main(argv: list[str]) -> int:
    """Run the command."""
    description = "Fetch up-to-date artifacts that only the remote store has; nothing is run."
    return transfer(argv, "pull", description, _pull, WORDS)


def _pull(item: Transfer) -> Moved:
    if item.record is not None:
        return "there"
    types = {name: output.type for name, output in item.node.ports.outputs.items()}
    return "moved" if item.remote.fetch(item.key, types, item.store, item.count) else "nothing"
