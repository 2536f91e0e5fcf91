"""Explain why a pattern of file names in a spec matches nothing, and what is similar."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from llmpipe.errors import did_you_mean
from llmpipe.paths import expanded
from llmpipe.patterns import EVERYTHING, UNSEEN, matching_files

NAMED = 5
"""The number of names or endings that a hint lists."""

LOOKED_AT = 1000
"""The number of a folder's entries that are read for a hint."""


def trouble_with(text: str, root: Path, pattern: str) -> tuple[str, str | None] | None:
    """Return why a pattern below a folder cannot be used, with a hint; None if it matches files.

    Args:
        text: The folder and the pattern as the spec writes them.
        root: The folder.
        pattern: The pattern below it.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        return f"{text}: the folder {root.name} {what}", _near_folder(root)
    if ".." in pattern.split("/"):
        return f"{text}: '..' cannot follow a wildcard", "name the folder itself"
    if EVERYTHING in pattern.split("/") and expanded("~").is_relative_to(root):
        message = f"{text} contains whole home folders, which would be read completely"
        return message, "name the folder inside it that you mean"
    try:
        dangling: set[str] = set()
        if next(matching_files(root, pattern, dangling), None) is None:
            return f"{text} matches no file", _nowhere(dangling) or _why_nothing(root, pattern)
    except OSError as error:
        return f"{text}: {error.filename} cannot be read: {error.strerror}", None
    return None


def _near_folder(root: Path) -> str | None:
    if not root.parent.is_dir():
        return f"the folder {root.parent.name}/ does not exist either"
    return did_you_mean(root.name, _names(root.parent))


def _nowhere(dangling: set[str]) -> str | None:
    if not dangling:
        return None
    more = f" and {len(dangling) - NAMED} more" if len(dangling) > NAMED else ""
    return f"broken links there: {', '.join(sorted(dangling)[:NAMED])}{more}"


def _why_nothing(root: Path, pattern: str) -> str:
    """Return how far a pattern leads, and what is there in place of its next part."""
    folders, parts = [root], pattern.split("/")
    for part in parts[:-1]:
        inner = list(islice(_folders_in(folders, part), LOOKED_AT))
        if not inner:
            return f"no folder {part!r} in {_shown(folders[0])}; it holds {_listed(folders[0])}"
        folders = inner
    endings = Counter(
        Path(name).suffix or name
        for name, _ in islice(matching_files(root, "/".join([*parts[:-1], "*"])), LOOKED_AT)
    )
    if not endings:
        return f"{_shown(folders[0])} holds {_listed(folders[0])}"
    counted = ", ".join(f"{ending} ({n})" for ending, n in endings.most_common(NAMED))
    return f"no file there is called {parts[-1]!r}; there are: {counted}"


def _folders_in(folders: list[Path], part: str) -> Iterator[Path]:
    if part == EVERYTHING:
        yield from folders
        return
    for folder in folders:
        named = (folder / name for name in _names(folder) if fnmatchcase(name, part))
        yield from (path for path in named if path.is_dir())


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in islice(entries, LOOKED_AT)]
    return [name for name in names if name not in UNSEEN]


def _listed(folder: Path) -> str:
    names = sorted(_names(folder))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (", ".join(names[:NAMED]) + more) or "nothing"


def _shown(folder: Path) -> str:
    return f"{folder.name}/"
