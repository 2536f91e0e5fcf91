"""``llmpipe pull``: bring what others have made from the remote store."""

from __future__ import annotations

from llmpipe.cli.remote import Transfer, transfer

WORDS = {True: "pulled", False: "here already", None: "not there"}


def main(argv: list[str]) -> int:
    """Run the command."""
    description = "Bring what is not here but in the remote store; nothing is run."
    return transfer(argv, "pull", description, _pull, WORDS)


def _pull(item: Transfer) -> bool | None:
    if item.record is not None:
        return False
    types = {name: output.type for name, output in item.node.ports.outputs.items()}
    return True if item.remote.fetch(item.key, types, item.store, item.count) else None
