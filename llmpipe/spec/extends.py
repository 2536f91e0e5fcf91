"""Read a spec and those that it ``extends``, and lay it over them.

A relative path belongs to the file that contains it, also if another file extends that one.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from llmpipe.errors import Problem, SpecError, did_you_mean
from llmpipe.foreign_files import is_axolotl
from llmpipe.paths import expanded
from llmpipe.patterns import LOCK_FILE
from llmpipe.spec.load import Node, load_bytes, read_bytes
from llmpipe.spec.merge import deep_merge
from llmpipe.spec.model import VERSION, SpecFile

MAX_FILES = 20


def load_extended(path: Path, text: str | None = None) -> tuple[Node, dict[str, SpecFile]]:
    """Return a spec laid over all that it extends, and each file by its name in messages.

    ``text`` is the content of a file that is not written yet.

    Raises:
        SpecError: A file cannot be read, is not a spec or has another version, or the files
            extend each other in a circle.
    """
    files: dict[str, SpecFile] = {}
    raw = read_bytes(path) if text is None else text.encode()
    return _load(path, raw, (), files), files


def _load(path: Path, raw: bytes, above: tuple[Path, ...], files: dict[str, SpecFile]) -> Node:
    root = load_bytes(raw, str(path))
    _check_kind(root, path)
    _check_version(root)
    files[root.location.file] = SpecFile(path.absolute(), hashlib.sha256(raw).hexdigest())
    merged: Node | None = None
    for base in _bases(root):
        place = path.parent / expanded(str(base.value))
        _check(base, place, (*above, path))
        below = _load(place, read_bytes(place), (*above, path), files)
        merged = below if merged is None else deep_merge(merged, below)
    if merged is None:
        return root
    merged = deep_merge(merged, root)
    return Node(merged.value, root.location, merged.keys, merged.size)


def _bases(root: Node) -> Iterator[Node]:
    """Yield the paths under ``extends``; each is laid over the ones before it."""
    extends = root.find(("extends",))
    if extends is None:
        return
    items = extends.value if isinstance(extends.value, list) else [extends]
    for item in items:
        if not isinstance(item.value, str) or not item.value or "\0" in item.value:
            raise SpecError([Problem("extends: must be a path to a spec", item.location)])
        yield item


def _check_kind(root: Node, path: Path) -> None:
    """Refuse an Axolotl file, and a lock file."""
    if path.name.endswith(LOCK_FILE) and "stages" not in root.children():
        message = f"{path} is the lock file of a spec, which `llmpipe run` writes"
        raise SpecError([Problem(message, None, "name the spec next to it")])
    if is_axolotl(root.children()):
        name = shlex.quote(str(path))
        message = f"{path} is a configuration of Axolotl, not a spec of llmpipe"
        hint = f"llmpipe check {name}; to train with it, name it in a spec: axolotl_file: {name}"
        raise SpecError([Problem(message, None, hint)])


def _check(base: Node, place: Path, above: tuple[Path, ...]) -> None:
    """Refuse a base that does not exist, leads back to its user, or is nested too deep."""
    if not place.is_file():
        names = [entry.name for entry in place.parent.glob("*.y*ml")]
        hint = did_you_mean(place.name, names)
        raise SpecError([Problem(f"extends: no such file: {base.value}", base.location, hint)])
    if any(place.samefile(other) for other in above):
        circle = " → ".join(str(p) for p in (*above, place))
        raise SpecError([Problem(f"extends: files in a circle: {circle}", base.location)])
    if len(above) >= MAX_FILES:
        raise SpecError([Problem(f"extends: over {MAX_FILES} files deep", base.location)])


def _check_version(root: Node) -> None:
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
