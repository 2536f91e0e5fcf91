"""``llmpipe push``: bring what is up to date to the remote store."""

from __future__ import annotations

from llmpipe.cli.remote import transfer
from llmpipe.runner.project import Project
from llmpipe.runner.remote import Count, Remote
from llmpipe.runner.store import KeyRecord


def main(argv: list[str]) -> int:
    """Run the command."""
    return transfer(
        argv, "push", "Bring what is up to date to the remote store, to share it.", _push
    )


def _push(
    project: Project, remote: Remote, key: str, record: KeyRecord | None, count: Count
) -> str | None:
    if record is None:
        return None
    return "pushed" if remote.push(record, project.store, count) else "there already"
