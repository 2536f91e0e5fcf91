"""Patterns of file names in a spec: ``./docs/**/*.md``.

    *        any characters of one name           [abc], [!abc]   one of these characters, or not
    ?        one character of a name              **              any number of folders

``**`` at the end means every file below. ``[*]``, ``[?]`` and ``[[]`` mean the characters
themselves. A name that begins with a dot matches only a pattern that begins with a dot. The planner
hashes the matching files and the stage reads them; both use this module.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from fnmatch import translate
from functools import cache
from pathlib import Path

from llmpipe.errors import StageError

UNSEEN = (".git", ".llmpipe", "__pycache__")
"""Folders inside an input folder that do not count as data."""

LOCK_FILE = ".lock.yaml"
"""The ending of lock files. Every run writes one beside its spec; it does not count as data."""

REPORT = "report.html"
REPORT_MARK = b'<meta name="generator" content="llmpipe">'
"""A tag near the beginning of a run's page that no other file of that name has."""

SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""Names for entries that are neither files, folders nor links."""

EVERYTHING = "**"
"""The pattern of all files below a folder."""

_WILDCARD = re.compile(r"[*?]|\[.[^]]*\]")
_ESCAPED = re.compile(r"\[([*?[])\]")

_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Errors of a link that leads to no file. Some editors leave such links as locks."""

Above = tuple[tuple[int, int], ...]
"""Device and inode of each folder on the path to a folder."""


def is_pattern(text: str) -> bool:
    """Return whether a path contains wildcards."""
    return _WILDCARD.search(text) is not None


def escaped(text: str) -> str:
    """Return a pattern that matches only this path."""
    return re.sub(r"[*?[]", r"[\g<0>]", text)


def split_pattern(text: str) -> tuple[str, str]:
    """Split a path into its longest beginning without wildcards and the pattern below it."""
    parts = text.split("/")
    first = next((i for i in range(len(parts)) if _begins_pattern(parts[i:])), len(parts))
    root = "/".join(_ESCAPED.sub(r"\1", part) for part in parts[:first]) or ("/" if first else ".")
    return root, "/".join(part for part in parts[first:] if part not in ("", "."))


def _begins_pattern(parts: Sequence[str]) -> bool:
    """Return whether the first part needs matching. An escaped folder name does not."""
    first = parts[0] if len(parts) == 1 else _ESCAPED.sub("", parts[0])
    return is_pattern(first)


def matching_files(
    root: Path, pattern: str, dangling: set[str] | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the matching regular files below a folder, each once: relative name and stat.

    Links are followed unless they lead in a circle. The order is that of the disk.

    Args:
        root: The folder.
        pattern: The pattern that names must match.
        dangling: Collects the names of links that lead nowhere and match or could lead to matches.

    Raises:
        OSError: A folder cannot be read.
    """
    parts = pattern.split("/")
    if parts[-1] == EVERYTHING:
        parts.append("*")
    seen: set[str] = set()
    nowhere: set[str] = set() if dangling is None else dangling
    for name, found in _matches(str(root), _without_repeats(parts), "", (), set(), nowhere):
        if name not in seen:
            seen.add(name)
            yield name, found


def _without_repeats(parts: Sequence[str]) -> list[str]:
    return [
        part for i, part in enumerate(parts) if part != EVERYTHING or parts[i - 1 : i] != [part]
    ]


def _matches(
    folder: str,
    parts: Sequence[str],
    below: str,
    above: Above,
    done: set[tuple[str, int]],
    nowhere: set[str],
) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the matches in one folder. ``done`` holds each folder with its remaining parts."""
    if (below, len(parts)) in done:
        return
    done.add((below, len(parts)))
    here = Path(folder).stat()
    above = (*above, (here.st_dev, here.st_ino))
    first, rest = parts[0], parts[1:]
    if first == EVERYTHING:
        yield from _matches(folder, rest, below, above[:-1], done, nowhere)
    accepts = _name_pattern("*" if first == EVERYTHING else first).fullmatch
    with os.scandir(folder) as entries:
        for entry in entries:
            if not accepts(entry.name) or (entry.name[0] == "." and first[0] != "."):
                continue
            found = followed(entry)
            if found is None:
                nowhere.add(below + entry.name)
                continue
            if stat.S_ISDIR(found.st_mode):
                left = parts if first == EVERYTHING else rest
                if left and entry.name not in UNSEEN and not is_circle(entry, found, above):
                    inner = f"{below}{entry.name}/"
                    yield from _matches(entry.path, left, inner, above, done, nowhere)
            elif not rest and not is_own(entry):
                refuse_special(found.st_mode, entry.path)
                yield below + entry.name, found


def is_own(entry: os.DirEntry[str]) -> bool:
    """Return whether llmpipe wrote a file beside a spec: a lock file or a report."""
    if entry.name != REPORT or not entry.is_file():
        return entry.name.endswith(LOCK_FILE)
    with Path(entry.path).open("rb") as page:
        return REPORT_MARK in page.read(500)


def followed(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return the stat of an entry, following links; None if a link leads nowhere or in a circle.

    Raises:
        OSError: The target of a link cannot be read.
    """
    try:
        return entry.stat()
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return None


def refuse_special(mode: int, path: str | Path) -> None:
    """Refuse an entry that is neither file nor folder, because reading it may never end.

    Raises:
        StageError: The entry is a pipe, socket or device.
    """
    if kind := SPECIAL.get(stat.S_IFMT(mode)):
        raise StageError(f"{path} is {kind}: only files and folders are inputs")


def is_circle(entry: os.DirEntry[str], found: os.stat_result, above: Above) -> bool:
    """Return whether an entry is a link back to one of the folders above it."""
    return entry.is_symlink() and (found.st_dev, found.st_ino) in above


@cache
def _name_pattern(part: str) -> re.Pattern[str]:
    return re.compile(translate(part))
