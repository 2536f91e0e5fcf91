"""What a reference can mean: a stage's output, a file, package data or a hub repository."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmpipe.contracts import ArtifactType
from llmpipe.needs import module_spec

HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
STAGE_REFERENCE = re.compile(r"(?P<stage>[a-z][a-z0-9_-]*)(\.(?P<output>[A-Za-z0-9_-]+))?")


@dataclass(frozen=True, slots=True)
class StageOutput:
    """An output of a stage of the same graph."""

    stage: str
    output: str


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A file or folder of the user, or inside an installed package."""

    path: Path


@dataclass(frozen=True, slots=True)
class LocalGlob:
    """The files below a folder that match a pattern of `llmpipe.patterns`."""

    root: Path
    pattern: str


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository on the Hugging Face hub. ``revision`` None means the default branch."""

    repo: str
    revision: str | None
    holds_rows: bool = False
    """Whether the repository is a data set, not a model."""
    split: str | None = None
    subset: str | None = None


@dataclass(frozen=True, slots=True)
class AbsentData:
    """Data inside a package that is not installed yet."""

    package: str
    inner: str


Source = StageOutput | LocalPath | LocalGlob | HubRepo | AbsentData


def absent_data(uri: str) -> AbsentData | None:
    """Return the data that a ``pkg://`` address names, or None if its package is installed."""
    package, _, inner = uri.removeprefix("pkg://").partition("/")
    is_absent = package.isidentifier() and not _package_folders(package)
    return AbsentData(package, inner) if is_absent else None


def package_path(uri: str) -> Path | str:
    """Resolve ``pkg://package/path`` to a path, or return the reason why it cannot be resolved.

    The package is located, not imported.
    """
    package, _, inner = uri.removeprefix("pkg://").partition("/")
    folders = _package_folders(package)
    if not folders:
        return f"the package {package!r} is not installed"
    if ".." in Path(inner).parts:
        return "a path inside a package cannot contain '..'"
    for folder in folders:
        path = folder / inner
        if path.exists():
            return path.resolve()
    return f"the package {package!r} has no {inner!r}"


@cache
def _package_folders(package: str) -> tuple[Path, ...]:
    if not package.isidentifier():
        return ()
    spec = module_spec(package)
    return tuple(Path(p) for p in (spec.submodule_search_locations or ())) if spec else ()


SHOWN_BY: dict[ArtifactType, str] = {
    "adapter": "adapter_config.json",  # a folder may have a config.json beside it
    "model": "config.json",
    "index": "index.json",
    "embeddings": "vectors.npy",
    "chunks": "chunking.json",
}
"""The file by which a folder shows what it is."""


def path_type(path: Path, accepts: tuple[ArtifactType, ...]) -> ArtifactType | None:
    """Return the type of the artifact at a path, as far as its files show it.

    A plain data file has the first data type that the caller accepts.
    """
    if path.is_dir():
        shown = (kind for kind, file in SHOWN_BY.items() if (path / file).exists())
        return next(shown, "file" if "file" in accepts else None)
    if path.suffix == ".gguf":
        return "gguf"
    data = ("records", "dataset", "metrics", "documents", "file")
    return next((kind for kind in accepts if kind in data), None)
