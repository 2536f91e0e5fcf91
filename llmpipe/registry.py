"""Find the class of a stage kind by name, and import it only when a spec uses it.

`KINDS` lists the kinds of this package. Other packages offer kinds through the entry point group
``llmpipe.stages`` (``kind = "package.module:Class"``). Installed packages are searched only for a
kind that is not in `KINDS`. A kind's variants (`llmpipe.contracts.Variants`) are found in the same
way. A class from another package is checked against the contract when it is first used, and its
return values on every call. Errors in them name the package, not the spec.
"""

from __future__ import annotations

import contextlib
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
    "bundle": "llmpipe.stages.bundle:Bundle",
    "chunk": "llmpipe.stages.chunk:Chunk",
    "command": "llmpipe.stages.command:Command",
    "curate": "llmpipe.stages.curate:Curate",
    "embed": "llmpipe.stages.embed:Embed",
    "evaluate": "llmpipe.stages.evaluate:Evaluate",
    "evaluate_retrieval": "llmpipe.stages.evaluate_retrieval:EvaluateRetrieval",
    "export": "llmpipe.stages.export:Export",
    "export_adapter": "llmpipe.stages.export_adapter:ExportAdapter",
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
        KeyError: Neither this package nor an installed one has the kind.
        PluginError: A package offers the kind, but it cannot be used.
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


def packages_of(kind: str) -> str:
    """Return the packages that offer a kind, in a few words."""
    return " and ".join(map(_who, _offered(ENTRY_POINTS).get(kind, ())))


def claimants(kind: str) -> str:
    """Return the packages that offer one of llmpipe's own kinds, too; theirs is never used."""
    with contextlib.suppress(PluginError):  # a damaged package says nothing about this kind
        return packages_of(kind) if kind in KINDS else ""
    return ""


def all_kinds() -> list[str]:
    """Return the names of every kind that a spec may use, sorted."""
    return sorted({*KINDS, *third_party_kinds()})


def variant_names(stage: type[Stage]) -> list[str]:
    """Return the names of a kind's variants, sorted, including those of installed packages."""
    variants = stage.variants
    return sorted({*variants.classes, *_offered(variants.entry_points)}) if variants else []


@cache
def variant_class(stage: type[Stage], name: str) -> Any:
    """Import and return the class of one of a kind's variants.

    Raises:
        KeyError: The kind has no variant of this name.
        PluginError: A package offers the variant, but it cannot be used.
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
        KeyError: The kind has no such variant.
    """
    return stage.Config if variant is None else variant_class(stage, variant).Config


def convert_config(stage: type[Stage], data: Mapping[str, Any]) -> StageConfig:
    """Convert a valid stage, given as plain data, to its config class.

    Raises:
        msgspec.ValidationError: The stage is not valid.
    """
    variant = data.get(stage.variants.field) if stage.variants else None
    return msgspec.convert(data, config_class(stage, variant))


@cache
def _offered(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    """Return the entry points of installed packages in a group, by name.

    Raises:
        PluginError: Those of a package cannot be read.
    """
    from importlib.metadata import entry_points

    try:
        points = dict.fromkeys(entry_points(group=group))
    except Exception as error:  # the standard library checks nothing that it reads
        raise _unreadable(error) from error
    found: dict[str, list[EntryPoint]] = {}
    for point in points:
        found.setdefault(point.name, []).append(point)
    return {name: tuple(points) for name, points in found.items()}


def _unreadable(error: Exception) -> PluginError:
    """Return the error that names the package whose entry points cannot be read."""
    from importlib.metadata import distributions

    for dist in distributions():
        try:
            list(dist.entry_points)
        except Exception:
            place = dist.locate_file(getattr(dist, "_path", ""))
            message = f"the entry points of an installed package cannot be read: {place}"
            return PluginError(f"{message}: {error}", hint="install that package again")
    return PluginError(f"the entry points of installed packages cannot be read: {error}")


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _from_package(
    what: str, points: tuple[EntryPoint, ...], shortcomings: Callable[[Any], Iterable[str]]
) -> tuple[Any, Callable[[str], PluginError]]:
    """Load a class that an installed package offers.

    Args:
        what: Its name in messages: ``the stage kind 'x'``.
        points: The entry points that offer it.
        shortcomings: Lists the parts of the contract that it lacks.

    Returns:
        The loaded class, and a function that makes an error that names its package.

    Raises:
        PluginError: Several packages offer it, or it cannot be used.
    """
    if len(points) > 1:
        raise PluginError(
            f"several packages offer {what}: {', '.join(map(_who, points))}",
            hint="uninstall all but one of them",
        )
    from llmpipe.contracts.checks import raised

    (point,) = points

    def blame(why: str) -> PluginError:
        message = f"{what} of {_who(point)} cannot be used: {why}"
        hint = f"it is the entry point {point.value} in the group {point.group}; ask its authors"
        hint += " (if it is yours, llmpipe.testing.StageConformance tests it)"
        return PluginError(message, hint=hint)

    try:
        found = point.load()
    except (Exception, SystemExit) as error:  # the import may run any code
        raise blame(raised(error)) from error
    lacks = "; ".join(shortcomings(found))
    if lacks:
        raise blame(lacks)
    return found, blame


def _who(point: EntryPoint) -> str:
    dist = point.dist
    known = dist is not None and dist.metadata["Name"]  # a damaged package has no metadata
    return f"the package {dist.name} {dist.version}" if dist and known else point.value
