"""From the name of a stage kind to its class, imported only when a spec uses it.

Our own kinds stand in `KINDS`. Those of other packages come through the entry point group
``llmpipe.stages`` (``kind = "package.module:Class"``); installed packages are searched for them
only when a kind is not one of ours. A kind's variants (`llmpipe.contracts.Variants`) are found the
same way. What comes from elsewhere is checked against the contract when
it is first used, and its answers whenever the engine asks: what is wrong with them is blamed on the
package, not on the spec.
"""

from __future__ import annotations

import importlib
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

import msgspec

from llmpipe.errors import PluginError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from importlib.metadata import EntryPoint

    from llmpipe.contracts import Stage, StageConfig

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
        return cast("type[Stage]", _imported(KINDS[kind]))
    from llmpipe.contracts.checks import checked, shortcomings

    points = third_party_kinds()[kind]
    found, blame = _from_package(f"the stage kind {kind!r}", points, shortcomings)
    return checked(found, blame)


def third_party_kinds() -> dict[str, tuple[EntryPoint, ...]]:
    """Return the kinds that installed packages offer, each with the packages that offer it."""
    return {kind: points for kind, points in _offered(ENTRY_POINTS).items() if kind not in KINDS}


def all_kinds() -> list[str]:
    """Return the names of every kind that a spec may use, sorted."""
    return sorted({*KINDS, *third_party_kinds()})


def variant_names(stage: type[Stage]) -> list[str]:
    """Return the names of a kind's variants, sorted; those of installed packages among them."""
    variants = stage.variants
    return sorted({*variants.classes, *_offered(variants.entry_points)}) if variants else []


@cache
def variant_class(stage: type[Stage], name: str) -> Any:
    """Import and return the class of one of a kind's variants.

    Raises:
        KeyError: the kind has no variant of this name.
        PluginError: a package offers it and it cannot be used.
    """
    variants = stage.variants
    if variants is None:
        raise KeyError(name)
    if name in variants.classes:
        return _imported(variants.classes[name])
    from llmpipe.contracts.checks import variant_shortcomings

    points = _offered(variants.entry_points)[name]
    return _from_package(
        f"the {variants.field} {name!r}", points, partial(variant_shortcomings, base=stage.Config)
    )[0]


def config_class(stage: type[Stage], variant: str | None = None) -> type[StageConfig]:
    """Return the config class of a kind, or of one of its variants.

    Raises:
        KeyError: the kind has no such variant.
    """
    return stage.Config if variant is None else variant_class(stage, variant).Config


def convert_config(stage: type[Stage], data: Mapping[str, Any]) -> StageConfig:
    """Turn a sound stage, as plain data, into its config class.

    Raises:
        msgspec.ValidationError: it is not sound.
    """
    variant = data.get(stage.variants.field) if stage.variants else None
    return msgspec.convert(data, config_class(stage, variant))


@cache
def _offered(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Return what installed packages offer in an entry point group, by name."""
    from importlib.metadata import entry_points

    found: dict[str, list[EntryPoint]] = {}
    for point in dict.fromkeys(entry_points(group=group)):
        found.setdefault(point.name, []).append(point)
    return {name: tuple(points) for name, points in found.items()}


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _from_package(
    what: str, points: tuple[EntryPoint, ...], shortcomings: Callable[[Any], Iterable[str]]
) -> tuple[Any, Callable[[str], PluginError]]:
    """Load what a package offers.

    Args:
        what: its name in messages: ``the stage kind 'x'``.
        points: those who offer it.
        shortcomings: lists what it lacks of its contract.

    Returns:
        What was loaded, and what makes the error that blames its package.

    Raises:
        PluginError: several packages offer it, or it cannot be used.
    """
    if len(points) > 1:
        raise PluginError(
            f"several packages offer {what}: {', '.join(map(_who, points))}",
            hint="uninstall all but one of them",
        )
    (point,) = points

    def blame(why: str) -> PluginError:
        message = f"{what} of {_who(point)} cannot be used: {why}"
        hint = f"it is the entry point {point.value} in the group {point.group}; ask its authors"
        return PluginError(message, hint=hint)

    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # whatever its code does when it is imported
        raise blame(f"{type(error).__name__}: {error}") from error
    lacks = "; ".join(shortcomings(found))
    if lacks:
        raise blame(lacks)
    return found, blame


def _who(point: EntryPoint) -> str:
    dist = point.dist
    return f"the package {dist.name} {dist.version}" if dist else point.value
