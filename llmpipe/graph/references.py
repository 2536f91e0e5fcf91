"""Resolve the text of a reference, as far as the text and the disk allow."""

from __future__ import annotations

import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from llmpipe.contracts import ArtifactType, Input
from llmpipe.errors import as_text, did_you_mean, is_text
from llmpipe.gguf_parts import all_parts, part_of
from llmpipe.graph.model import Binding
from llmpipe.graph.patterns import trouble_with
from llmpipe.graph.sources import (
    HUB_ID,
    SHOWN_BY,
    STAGE_REFERENCE,
    HubRepo,
    LocalGlob,
    LocalPath,
    StageOutput,
    absent_data,
    package_path,
    path_type,
)
from llmpipe.paths import expanded, is_path, local_path
from llmpipe.patterns import EVERYTHING, SPECIAL, is_pattern, split_pattern

FETCH = """fetch it by a stage, and name that here:
page: {kind: command, run: "curl -fsSL URL -o ${outputs.page}", outputs: {page: page.html}}"""

NAMED = 5
"""The number of missing files that a message names."""

HUB_TYPES: tuple[ArtifactType, ...] = ("model", "adapter", "records", "dataset")


@dataclass(frozen=True, slots=True)
class Trouble:
    """The reason that a reference cannot be resolved."""

    message: str
    hint: str | None = None


def meaning(
    wanted: Input, folder: Path, stages: Collection[str], *, absent: bool = False
) -> StageOutput | Binding | Trouble:
    """Return what a reference means.

    Args:
        wanted: The reference and the types that its place accepts.
        folder: The folder that relative paths start from.
        stages: The ids of the spec's stages.
        absent: Whether a package may be missing, to be installed later.

    Returns:
        The output of a stage, with an empty name for its default output; or a binding to a file, a
        folder or a hub repository; or what is wrong.
    """
    text = wanted.value
    if (wanted.split or wanted.subset) and not HUB_ID.fullmatch(text):
        field = "split" if wanted.split else "subset"
        return Trouble(f"{text!r} is not a data set of the hub", f"remove its {field}")
    lacking = absent_data(text) if absent and text.startswith("pkg://") else None
    if lacking:
        shown = path_type(Path("pkg:", lacking.inner), wanted.accepts)
        return Binding(lacking, shown or wanted.accepts[0], text)
    if text.startswith("pkg://") or is_path(text):
        return _at_path(wanted, folder)
    reference = STAGE_REFERENCE.fullmatch(text)
    if reference and (reference["stage"] in stages or "/" not in text):
        if reference["stage"] in stages:
            return StageOutput(reference["stage"], reference["output"] or "")
        near = did_you_mean(reference["stage"], stages)
        known = f"stages: {', '.join(stages)}; a path begins with ./"
        return Trouble(f"there is no stage {reference['stage']!r}", near or known)
    hub = HUB_ID.fullmatch(text)
    if hub and (folder / text).exists():
        message = f"{text!r} could be a hub id or the folder next to the spec"
        return Trouble(message, f"for the folder write ./{text}")
    types = [] if wanted.glob else [t for t in wanted.accepts if t in HUB_TYPES]
    if hub and types:
        type_ = "model" if "model" in types else types[0]
        rows = type_ in ("records", "dataset")
        source = HubRepo(hub["repo"], hub["revision"], rows, wanted.split, wanted.subset)
        return Binding(source, type_, text)
    if re.match("(?i)https?://", text):
        return Trouble(f"{text!r} is on the web, where it may change without a trace", FETCH)
    what = "no stage and no path" if wanted.glob else "no stage, no path and no hub id"
    message = f"{text!r} is {what}"
    return Trouble(message, "a path begins with ./, ../, / or ~")


def either(types: tuple[ArtifactType, ...]) -> str:
    """Return the accepted types in words: ``a model or an adapter``."""
    words = [
        f"{'an' if t[0] in 'aei' else 'a'} {t}" if t != "records" else "records" for t in types
    ]
    return " or ".join(words)


def _at_path(wanted: Input, folder: Path) -> Binding | Trouble:
    if wanted.glob and is_pattern(wanted.value) and not (folder / expanded(wanted.value)).exists():
        beginning, pattern = split_pattern(wanted.value)
        root = _path(beginning, folder)
        return root if isinstance(root, Trouble) else _files(wanted, root, pattern)
    path = _path(wanted.value, folder)
    if isinstance(path, Trouble):
        return path
    whole_folder = wanted.glob and path.is_dir()
    return _files(wanted, path, EVERYTHING) if whole_folder else _file(wanted, path)


def _path(text: str, folder: Path) -> Path | Trouble:
    found = package_path(text) if text.startswith("pkg://") else local_path(text, folder)
    if isinstance(found, Path):
        if is_text(str(found)):
            return found
        message = f"{text} leads to {as_text(str(found))}, which is not UTF-8 text"
        return Trouble(message, "rename the part that is not")
    return Trouble(f"{text}: {found}", "install it, or see what packages carry with `pip show -f`")


def _files(wanted: Input, root: Path, pattern: str) -> Binding | Trouble:
    wrong = trouble_with(wanted.value, root, pattern)
    if wrong:
        return Trouble(*wrong)
    return Binding(LocalGlob(root, pattern), wanted.accepts[0], wanted.value)


def _file(wanted: Input, path: Path) -> Binding | Trouble:
    if not path.exists():
        return Trouble(f"no such file or folder: {wanted.value}", _near_file(path))
    if not (path.is_file() or path.is_dir()):
        what = SPECIAL.get(stat.S_IFMT(path.stat().st_mode), "a special file")
        return Trouble(f"{wanted.value} is {what}; a regular file or a folder is needed here")
    if expanded("~").is_relative_to(path.absolute()):
        message = f"{wanted.value} contains whole home folders, which would be read completely"
        return Trouble(message, "name the folder inside it that you mean")
    type_ = path_type(path, wanted.accepts)
    lacking = _lacking_parts(wanted.value, path) if type_ == "gguf" else None
    if lacking is not None:
        return lacking
    if type_ is None:
        files = " or ".join(SHOWN_BY[kind] for kind in wanted.accepts if kind in SHOWN_BY)
        what = f"a folder without {files}" if path.is_dir() and files else _shape(path)
        return Trouble(f"{wanted.value} is {what}; {either(wanted.accepts)} is needed here")
    return Binding(LocalPath(path), type_, wanted.value)


def _lacking_parts(text: str, path: Path) -> Trouble | None:
    """Return why a path is not a whole split GGUF; None if it is one, or is not split."""
    part = part_of(path.name)
    if part is None:
        return None
    missing = [file.name for file in all_parts(path) if not file.is_file()]
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        message = f"{text} is part {part.number} of {part.count} of a GGUF; missing next to it: "
        hint = f"all parts must be in one folder, {path.parent.name}/"
        return Trouble(message + ", ".join(missing[:NAMED]) + more, hint)
    if part.number > 1:
        message = f"{text} is part {part.number} of {part.count} of a GGUF"
        first = (text.removesuffix(path.name) if text.endswith(path.name) else "") + part.name(1)
        return Trouble(message, f"name the first part, which stands for all: {first}")
    return None


def _shape(path: Path) -> str:
    return "a folder" if path.is_dir() else "a plain file"


def _near_file(path: Path) -> str | None:
    if not path.parent.is_dir():
        return f"the folder {path.parent.name}/ does not exist either"
    names = [entry.name for _, entry in zip(range(1000), path.parent.iterdir(), strict=False)]
    return did_you_mean(path.name, names)
