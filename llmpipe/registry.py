"""From the name of a stage kind to its class, imported only when a spec uses it.

Our own kinds stand in `KINDS`. Anybody else's come through the entry point group
``llmpipe.stages`` (``kind = "package.module:Class"``); installed packages are searched for them
only when a kind is not one of ours.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from llmpipe.contracts import Stage

ENTRY_POINTS = "llmpipe.stages"

KINDS: dict[str, str] = {
    "command": "llmpipe.stages.command:Command",
    "evaluate": "llmpipe.stages.evaluate:Evaluate",
    "export": "llmpipe.stages.export:Export",
    "format": "llmpipe.stages.format:Format",
    "generate": "llmpipe.stages.generate:Generate",
    "import_gguf": "llmpipe.stages.import_gguf:ImportGguf",
    "merge": "llmpipe.stages.merge:Merge",
    "select": "llmpipe.stages.select:Select",
    "serve": "llmpipe.stages.serve:Serve",
    "train": "llmpipe.stages.train:Train",
}


@cache
def stage_class(kind: str) -> type[Stage]:
    """Import and give the class of a stage kind.

    Raises:
        KeyError: no such kind is known here or offered by an installed package.
    """
    target = KINDS.get(kind) or third_party_kinds().get(kind)
    if target is None:
        raise KeyError(kind)
    module, _, name = target.partition(":")
    return cast("type[Stage]", getattr(importlib.import_module(module), name))


@cache
def third_party_kinds() -> dict[str, str]:
    """Give the kinds that installed packages offer, as ``{kind: "module:Class"}``."""
    from importlib.metadata import entry_points

    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def all_kinds() -> list[str]:
    """Give the names of every kind that a spec may use, sorted."""
    return sorted({*KINDS, *third_party_kinds()})
