"""The field ``dataset``: keys of Axolotl's ``datasets`` entry, and their values.

The entry names the file that llmpipe writes, so llmpipe sets the keys that locate rows and name
their columns. The user sets the rest. Axolotl defines which keys exist;
`llmpipe.backends.axolotl.check` asks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from llmpipe.backends.axolotl.config import GRPO, KTO, PREFERENCE, KeyPath

Kind = Literal["conversation", "text", "alpaca", "pair", "labeled", "prompt", "as they are"]
"""The kind of a stage's rows; "as they are" if the user names a type of their own."""

_ONE_TEMPLATE = "write it in the stage's axolotl block: the published tokenizer then carries it"
_ONE_FILE = "llmpipe passes all rows in one file; name them in the stage's field data"
_ONE_SHAPE = "llmpipe passes turns with role and content, whatever the rows call them"

PLACE_KEYS: Mapping[str, str] = dict.fromkeys(
    (
        *("path", "ds_type", "split", "data_files", "name", "revision", "trust_remote_code"),
        *("shards", "shards_idx", "preprocess_shards"),
    ),
    _ONE_FILE,
)
"""Keys that locate rows, and why a stage does not accept them."""

TEMPLATE_KEYS: Mapping[str, str] = dict.fromkeys(
    ("chat_template", "chat_template_jinja"), _ONE_TEMPLATE
)
"""Keys that would train on one template and publish, evaluate and serve another."""

COLUMN_KEYS: Mapping[str, str] = dict.fromkeys(
    (
        *("field", "field_messages", "field_tools", "field_chosen", "field_rejected"),
        *("field_human", "field_model", "message_field_role", "message_field_content"),
        *("message_property_mappings",),
    ),
    _ONE_SHAPE,
)
"""Keys that name columns: also llmpipe's, unless the stage sets its own type."""

CHAT_KEYS = frozenset(
    {
        "drop_system_message",
        "field_thinking",
        "message_field_training",
        "message_field_training_detail",
        "roles",
        "roles_to_train",
        "split_thinking",
        "template_thinking_key",
        "train_on_eos",
        "train_on_eot",
    }
)
"""Keys that Axolotl reads for rows of the type ``chat_template``."""

SYSTEM_TYPES = (
    "alpaca_w_system.load",
    "alpaca_w_system.load_instruct",
    "alpaca_w_system.load_chat",
)
"""Axolotl's Alpaca types that have a place for a system text."""

ALPACA_TYPES = (
    *("alpaca", "alpaca_chat.load", "alpaca_chat.load_concise", "alpaca_chat.load_no_prompt"),
    *("alpaca_instruct.load", "alpaca_instruct.load_no_prompt"),
    *SYSTEM_TYPES,
)
"""Axolotl's types for rows of instruction, input and output."""

IDLE: Mapping[str, str] = {
    "pair": "pairs of answers",
    "labeled": "labeled answers",
    "prompt": "prompts",
    "text": "raw text",
    "alpaca": "Alpaca prompts",
}
"""The kinds of rows for which Axolotl does not read `CHAT_KEYS`, and their names."""


METHOD_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(PREFERENCE, "pair"),
    KTO: "labeled",
    GRPO: "prompt",
}
"""The kinds of rows that preference methods train on, by ``rl``."""


def kind_of_rows(block: Mapping[str, Any], dataset: Mapping[str, Any]) -> Kind | None:
    """Return what the stage's rows are read as, or None if their columns decide."""
    named = dataset.get("type")
    method = block.get("rl")
    kind = METHOD_KINDS.get(method) if isinstance(method, str) else None
    kind = "pair" if block.get("reward_model") else kind
    if kind:
        return kind if named is None else "as they are"
    if named in (None, "chat_template"):
        return "conversation" if named else None
    if named == "completion":
        return "text"
    bare = str(named).partition(":")[0]  # alpaca:chat is Alpaca in another style
    return "alpaca" if isinstance(named, str) and bare in ALPACA_TYPES else "as they are"


def entry_problems(
    block: Mapping[str, Any], dataset: Mapping[str, Any]
) -> list[tuple[KeyPath, str]]:
    """List the problems of the keys of ``dataset``.

    These are keys that llmpipe owns, keys that do not apply to such rows, and roles of another
    shape.
    """
    dataset = given(dataset)
    kind = kind_of_rows(block, dataset)
    owned = {**PLACE_KEYS, **TEMPLATE_KEYS, **({} if kind == "as they are" else COLUMN_KEYS)}
    found: list[tuple[KeyPath, str]] = [
        ((key,), f"{key} does not belong in dataset: {owned[key]}")
        for key in dataset
        if key in owned
    ]
    if kind is not None and kind in IDLE:
        found += [((key,), idle(key, kind)) for key in dataset if key in CHAT_KEYS]
    return found + _role_problems(dataset)


def _role_problems(dataset: Mapping[str, Any]) -> list[tuple[KeyPath, str]]:
    """List the keys whose roles and names of speakers could not be read."""
    roles = dataset.get("roles", {})
    found: list[tuple[KeyPath, str]] = []
    if not isinstance(roles, Mapping) or not all(map(_is_texts, roles.values())):
        shape = "{assistant: [gpt, model], user: [human]}"
        found.append((("roles",), f"roles must hold a list of names for each role: {shape}"))
    if not _is_texts(dataset.get("roles_to_train", [])):
        found.append((("roles_to_train",), "roles_to_train must hold a list: [assistant]"))
    return found


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def given(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys that are set: a null unsets what another profile or file wrote."""
    return {key: value for key, value in dataset.items() if value is not None}


def idle(key: str, kind: str) -> str:
    """Return the message that Axolotl reads a key only for conversations."""
    return f"{key} is read for conversations (type: chat_template) only, and these are {IDLE[kind]}"


def lost_entry_keys(
    from_file: Mapping[str, Any], dataset: Mapping[str, Any], label: str
) -> list[str]:
    """Describe the lost keys of an Axolotl file's ``datasets``, which belong under ``dataset``."""
    entries = from_file.get("datasets")
    entries = entries if isinstance(entries, list) else []
    keys = {
        str(key): None
        for entry in entries
        if isinstance(entry, Mapping)
        for key, value in entry.items()
        if (key, value) != ("type", "chat_template")  # as it is anyway
    }
    lost = [key for key in keys if key not in {**PLACE_KEYS, **COLUMN_KEYS, **dataset}]
    if not lost:
        return []
    advice = "write settings of rows under the field dataset, and a chat template under axolotl"
    return [f"{label}: {', '.join(lost)} in its datasets has no effect; {advice}"]
