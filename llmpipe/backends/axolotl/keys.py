"""Check keys against Axolotl's config models, as strictly as our own fields.

Axolotl silently drops keys that its models do not define. `unknown_keys` finds such keys at every
level; `entry_problems` does so for the entry of ``datasets`` with a stage's rows.

This runs in `llmpipe.backends.axolotl.check_subprocess`, the only process that imports Axolotl.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from llmpipe.backends.axolotl.config import (
    OWN_PLUGINS,
    PREFERENCE,
    REWARDS_PLUGIN,
    BlockProblem,
    KeyPath,
)
from llmpipe.backends.axolotl.names import ELSEWHERE
from llmpipe.errors import did_you_mean


def entry_problems(
    dataset: dict[str, Any], block: Mapping[str, Any], owner: str
) -> Iterator[BlockProblem]:
    """Yield the unknown keys and wrong values of a ``datasets`` entry.

    The entry is checked against its own model. In the union of all models, a wrong value would fit
    another model, which drops the key.
    """
    from axolotl.utils.schemas.datasets import DPODataset, SFTDataset
    from pydantic import ValidationError

    model: Any = DPODataset if block.get("rl") in PREFERENCE else SFTDataset
    unknown = list(unknown_keys(model, dataset, (), f"a datasets entry of {owner}"))
    yield from (replace(problem, field="dataset") for problem in unknown)
    try:
        model.model_validate(dict(dataset))  # its validators modify it
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            path = path_in(dataset, found["loc"])
            if path not in {problem.path for problem in unknown}:
                yield BlockProblem(
                    path, found["msg"].removeprefix("Value error, "), field="dataset"
                )


def of_an_entry(problem: BlockProblem, whole: bool) -> BlockProblem:
    """Return the problem with a better message if the key belongs to a ``datasets`` entry."""
    from axolotl.utils.schemas.datasets import SFTDataset

    key = str(problem.path[-1])
    if len(problem.path) > 1 or key not in SFTDataset.model_fields:
        return problem
    where = "an entry of datasets" if whole else f"the stage's own field dataset: {{{key}: …}}"
    hint = f"it is a key of a datasets entry: write it under {where}"
    return replace(problem, message=f"{key!r} has no effect here", hint=hint)


def optimizer_problems(
    document: Mapping[str, Any], block: Mapping[str, Any]
) -> Iterator[BlockProblem]:
    """Yield the problem of an optimizer that neither Axolotl nor transformers has.

    Axolotl's validation accepts any name. A plugin that is not Axolotl's may bring its own.
    """
    from axolotl.utils.schemas.enums import CustomSupportedOptimizers
    from transformers.training_args import OptimizerNames

    name = block.get("optimizer")
    plugins = document.get("plugins") or []
    if not isinstance(name, str) or not all(
        str(plugin).startswith("axolotl.") or plugin in (*OWN_PLUGINS, REWARDS_PLUGIN)
        for plugin in plugins
    ):
        return
    known = {
        str(item.value) for kind in (OptimizerNames, CustomSupportedOptimizers) for item in kind
    }
    if name not in known:
        hint = did_you_mean(name, known) or f"known are {', '.join(sorted(known))}"
        yield BlockProblem(("optimizer",), f"unknown optimizer {name!r}", hint)


def path_in(block: Any, location: Iterable[str | int]) -> KeyPath:
    """Follow pydantic's location as far as the block goes, skipping names of union members."""
    path: list[str | int] = []
    for step in location:
        try:
            block = block[step]
        except (LookupError, TypeError):
            continue
        path.append(step)
    return tuple(path)


def path_in_entries(block: Mapping[str, Any], found: Mapping[str, Any]) -> KeyPath:
    """Return the path to a pydantic error that Axolotl raised for an entry alone, if it is one.

    Such an error does not say which entry it is in, but which value is wrong.
    """
    for key in ("datasets", "test_datasets"):
        entries = block.get(key)
        for i, entry in enumerate(entries if isinstance(entries, list) else []):
            path = path_in(entry, found["loc"])
            value = entry
            for step in path:
                value = value[step]
            if path and value == found["input"]:
                return (key, i, *path)
    return ()


def unknown_keys(hint: Any, value: Any, where: KeyPath, owner: str) -> Iterator[BlockProblem]:
    """Yield the keys of ``value`` that the type ``hint`` does not know, at every level."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_keys(_item_type(hint), item, (*where, index), owner)
        return
    if not isinstance(value, Mapping):
        return
    models = _models_in(hint)
    if not models:
        return  # an open mapping: Axolotl passes it on unchanged
    attempts = [list(_unknown_in_model(model, value, where, owner)) for model in models]
    yield from min(attempts, key=len)


def _unknown_in_model(
    model: Any, value: Mapping[str, Any], where: KeyPath, owner: str
) -> Iterator[BlockProblem]:
    known = _known_keys(model)
    for key, item in value.items():
        if key in known:
            yield from unknown_keys(known[key], item, (*where, key), owner)
            continue
        words = [name for name in known if str(key).split("_")[0] in name]
        more = f" ({owner} has {len(words)} keys that contain {str(key).split('_')[0]!r})"
        said = ELSEWHERE.get(str(key).lower())
        guess = f"did you mean {said!r}?" if said in known else did_you_mean(str(key), known)
        yield BlockProblem(
            (*where, key),
            f"unknown key {key!r}",
            f"{guess}{more if len(words) > 1 else ''}" if guess else f"{owner} has no such key",
        )


@functools.cache
def _known_keys(model: Any) -> dict[str, Any]:
    """Return every key of a pydantic model, by name and alias, with its type."""
    known: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        alias = info.validation_alias
        choices = getattr(alias, "choices", [alias])
        for key in (name, info.alias, *(c for c in choices if isinstance(c, str))):
            if key:
                known[key] = info.annotation
    for key in _LEGACY_KEYS.get(model.__name__, ()):
        known.setdefault(key, Any)
    return known


_LEGACY_KEYS: Mapping[str, tuple[str, ...]] = {
    "DPODataset": ("ds_type", "name", "message_property_mappings", "roles", "chat_template"),
}
"""Keys that Axolotl's loaders read although its model does not define them."""


def _models_in(hint: Any) -> list[Any]:
    """Return the pydantic models in a type; none if it also allows a plain mapping."""
    from pydantic import BaseModel

    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _models_in(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        members = typing.get_args(hint)
        if any(member is dict or typing.get_origin(member) is dict for member in members):
            return []
        return [model for member in members for model in _models_in(member)]
    return []


def _item_type(hint: Any) -> Any:
    """Return the type of a list's items, looking through optional and annotated types."""
    origin = typing.get_origin(hint)
    if origin in (typing.Annotated, typing.Union, types.UnionType):
        members = typing.get_args(hint)
        members = members[:1] if origin is typing.Annotated else members
        return next((t for t in map(_item_type, members) if t is not Any), Any)
    if origin in (list, typing.Sequence):
        return typing.get_args(hint)[0]
    return Any
