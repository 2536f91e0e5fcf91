"""From the name of a stage kind to its class, imported only when a spec uses it.

Our own kinds stand in `KINDS`. Those of other packages come through the entry point group
``llmpipe.stages`` (``kind = "package.module:Class"``); installed packages are searched for them
only when a kind is not one of ours. What comes from elsewhere is checked against the contract when
it is first used, and its answers whenever the engine asks: what is wrong with them is blamed on the
package, not on the spec.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, cast

from llmpipe.errors import PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from llmpipe.contracts import Stage

ENTRY_POINTS = "llmpipe.stages"

KINDS: dict[str, str] = {
    "chunk": "llmpipe.stages.chunk:Chunk",
    "command": "llmpipe.stages.command:Command",
    "embed": "llmpipe.stages.embed:Embed",
    "evaluate": "llmpipe.stages.evaluate:Evaluate",
    "evaluate_retrieval": "llmpipe.stages.evaluate_retrieval:EvaluateRetrieval",
    "export": "llmpipe.stages.export:Export",
    "format": "llmpipe.stages.format:Format",
    "generate": "llmpipe.stages.generate:Generate",
    "import_gguf": "llmpipe.stages.import_gguf:ImportGguf",
    "index": "llmpipe.stages.index:Index",
    "ingest": "llmpipe.stages.ingest:Ingest",
    "merge": "llmpipe.stages.merge:Merge",
    "rag": "llmpipe.stages.rag:Rag",
    "select": "llmpipe.stages.select:Select",
    "serve": "llmpipe.stages.serve:Serve",
    "train": "llmpipe.stages.train:Train",
}


@cache
def stage_class(kind: str) -> type[Stage]:
    """Import and return the class of a stage kind.

    Raises:
        KeyError: no such kind is known here or offered by an installed package.
        PluginError: a package offers it and it cannot be used.
    """
    if kind in KINDS:
        module, _, name = KINDS[kind].partition(":")
        return cast("type[Stage]", getattr(importlib.import_module(module), name))
    return _from_package(kind, third_party_kinds()[kind])


@cache
def third_party_kinds() -> dict[str, tuple[EntryPoint, ...]]:
    """Return the kinds that installed packages offer, each with the packages that offer it."""
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for point in dict.fromkeys(entry_points(group=ENTRY_POINTS)):
        found.setdefault(point.name, []).append(point)
    return {kind: tuple(points) for kind, points in found.items() if kind not in KINDS}


def all_kinds() -> list[str]:
    """Return the names of every kind that a spec may use, sorted."""
    return sorted({*KINDS, *third_party_kinds()})


def _from_package(kind: str, points: tuple[EntryPoint, ...]) -> type[Stage]:
    from llmpipe.contracts.checks import checked, shortcomings

    if len(points) > 1:
        raise PluginError(
            f"several packages offer the stage kind {kind!r}: {', '.join(map(_who, points))}",
            hint="uninstall all but one of them",
        )
    (point,) = points

    def blame(why: str) -> PluginError:
        message = f"the stage kind {kind!r} of {_who(point)} cannot be used: {why}"
        hint = f"it is the entry point {point.value} in the group {ENTRY_POINTS}; ask its authors"
        return PluginError(message, hint=hint)

    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # whatever its code does when it is imported
        raise blame(f"{type(error).__name__}: {error}") from error
    lacks = "; ".join(shortcomings(found))
    if lacks:
        raise blame(lacks)
    return checked(found, blame)


def _who(point: EntryPoint) -> str:
    dist = point.dist
    return f"the package {dist.name} {dist.version}" if dist else point.value
