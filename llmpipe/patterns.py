"""Patterns of file names, as people write them in a spec: ``./docs/**/*.md``.

    *        any characters of one name           [abc], [!abc]   one character of these, of others
    ?        one character of a name              **              any folders, also none

``**`` at the end means every file below; ``[*]``, ``[?]`` and ``[[]`` mean the characters
themselves. Names with a dot in front match only what begins with a dot itself. The planner takes
the digest of what matches and the stage reads it: both ask here.
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
"""Folders in an input folder that are no part of anybody's data."""

LOCK_FILE = ".lock.yaml"
"""What the names of lock files end in: every run writes one beside its spec, as no one's data."""

REPORT = "report.html"
REPORT_MARK = b'<meta name="generator" content="llmpipe">'
"""What tells the page of a run from another file of its name, near its beginning."""

SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What is neither file, folder nor link."""

EVERYTHING = "**"
"""The pattern of all files below a folder."""

_WILDCARD = re.compile(r"[*?]|\[.[^]]*\]")
_ESCAPED = re.compile(r"\[([*?[])\]")

_NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What following a link ends in that leads to no file, as editors leave it for a lock."""

Above = tuple[tuple[int, int], ...]
"""Device and inode of each folder on the way to one."""


def is_pattern(text: str) -> bool:
    """Tell whether a path holds wildcards."""
    return _WILDCARD.search(text) is not None


def escaped(text: str) -> str:
    """Give the pattern that means a path itself, whatever characters are in it."""
    return re.sub(r"[*?[]", r"[\g<0>]", text)


def split_pattern(text: str) -> tuple[str, str]:
    """Give the longest part of a path without wildcards, as a path, and the pattern below it."""
    parts = text.split("/")
    first = next((i for i in range(len(parts)) if _begins_pattern(parts[i:])), len(parts))
    root = "/".join(_ESCAPED.sub(r"\1", part) for part in parts[:first]) or ("/" if first else ".")
    return root, "/".join(part for part in parts[first:] if part not in ("", "."))


def _begins_pattern(parts: Sequence[str]) -> bool:
    """Tell whether the first of the parts needs matching: of a folder, an escaped name does not."""
    first = parts[0] if len(parts) == 1 else _ESCAPED.sub("", parts[0])
    return is_pattern(first)


def matching_files(
    root: Path, pattern: str, dangling: set[str] | None = None
) -> Iterator[tuple[str, os.stat_result]]:
    """Give the regular files below a folder that match, each once: relative name and stat.

    Links are followed, but no circles. Their order is that of the disk.

    Args:
        root: the folder.
        pattern: what names must match.
        dangling: takes the names of links that match, or may hold what does, and lead nowhere.

    Raises:
        OSError: a folder cannot be read.
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
    """Give what matches in one folder; ``done`` holds each folder with the parts left for it."""
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
    """Tell whether a file is what llmpipe itself writes beside a spec: a lock file or a report."""
    if entry.name != REPORT or not entry.is_file():
        return entry.name.endswith(LOCK_FILE)
    with Path(entry.path).open("rb") as page:
        return REPORT_MARK in page.read(500)


def followed(entry: os.DirEntry[str]) -> os.stat_result | None:
    """Return the stat of an entry, links followed; None for a link that leads nowhere or round.

    Raises:
        OSError: what a link leads to cannot be looked at.
    """
    try:
        return entry.stat()
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return None


def refuse_special(mode: int, path: str | Path) -> None:
    """Refuse what is neither file nor folder: to read it may never end.

    Raises:
        StageError: it is a pipe, socket or device.
    """
    if kind := SPECIAL.get(stat.S_IFMT(mode)):
        raise StageError(f"{path} is {kind}: only files and folders are inputs")


def is_circle(entry: os.DirEntry[str], found: os.stat_result, above: Above) -> bool:
    """Tell whether an entry is a link that leads back to one of the folders that it is in."""
    return entry.is_symlink() and (found.st_dev, found.st_ino) in above


@cache
def _name_pattern(part: str) -> re.Pattern[str]:
    return re.compile(translate(part))
