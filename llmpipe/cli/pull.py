"""``llmpipe pull``: bring what others have made from the remote store."""

from __future__ import annotations

from llmpipe.cli.remote import transfer
from llmpipe.runner.project import Project
from llmpipe.runner.remote import Count, Remote
from llmpipe.runner.store import KeyRecord


def main(argv: list[str]) -> int:
    """Run the command."""
    return transfer(
        argv, "pull", "Bring what is not here but in the remote store, to run nothing.", _pull
    )


def _pull(
    project: Project, remote: Remote, key: str, record: KeyRecord | None, count: Count
) -> str | None:
    if record is not None:
        return "here already"
    return "pulled" if remote.fetch(key, project.store, count) else None
