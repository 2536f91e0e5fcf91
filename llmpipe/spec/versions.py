"""Check the version of the spec language of a file."""

from __future__ import annotations

from llmpipe.errors import Problem, SpecError
from llmpipe.spec.load import Node
from llmpipe.spec.model import VERSION


def check_version(root: Node) -> None:
    """Refuse a spec of another version of the language, before its keys are checked.

    Raises:
        SpecError: The version is newer or never existed. A missing or empty one is left to the
            schema.
    """
    found = root.find(("version",))
    if found is None or found.value in (None, VERSION):
        return
    if isinstance(found.value, int) and found.value > VERSION:
        message = f"version {found.value} of the spec language; this llmpipe reads {VERSION}"
        hint = "upgrade llmpipe: pip install --upgrade llmpipe"
    else:
        message = f"there is no version {found.value!r} of the spec language"
        hint = f"write version: {VERSION}"
    raise SpecError([Problem(f"version: {message}", found.location, hint)])
