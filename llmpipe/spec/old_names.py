"""Fields that were renamed: a spec may still use the old name, and a note gives the new one."""

from __future__ import annotations

from typing import Any

from llmpipe.spec.load import Node

Schema = dict[str, Any]


def with_new_names(node: Node, schema: Schema, name: str) -> tuple[Node, list[str]]:
    """Return a stage with its fields under their new names, and a note for each old name.

    The schema of a renamed field holds the old name as ``formerly``. If a spec uses both names,
    the old one stays, and is reported as an unknown key.

    Args:
        node: the stage.
        schema: the strict schema of its kind.
        name: what the notes call the stage.
    """
    notes: list[str] = []
    definitions = schema["$defs"]

    def walk(node: Node, schema: Schema, path: str) -> Node:
        if isinstance(node.value, list):
            items = _fitting(schema, "array", definitions).get("items") or {}
            children = [walk(child, items, f"{path}[{i}]") for i, child in enumerate(node.value)]
            return Node(children, node.location, node.keys, node.size)
        if not isinstance(node.value, dict):
            return node
        fields = _fitting(schema, "object", definitions).get("properties", {})
        new_names = {field["formerly"]: new for new, field in fields.items() if "formerly" in field}
        value, keys = {}, dict(node.keys)
        for key, child in node.value.items():
            new = new_names.get(key, key)
            if new != key and new in node.value:
                new = key
            elif new != key:
                keys[new] = node.locate((key,), key=True)
                notes.append(f"{keys[new]}: {path}: {key!r} is now called {new!r}")
            value[new] = walk(child, fields.get(new, {}), f"{path}.{new}")
        return Node(value, node.location, keys, node.size)

    return walk(node, schema, name), notes


def twice_named(key: str, schema: Schema) -> str | None:
    """Return a hint for an old name that stayed because the new one is there, too."""
    fields = schema.get("properties", {}).items()
    new = next((name for name, field in fields if field.get("formerly") == key), None)
    return new and f"{key!r} is now called {new!r}, which is set as well; remove one of them"


def _fitting(schema: Schema, kind: str, definitions: Schema) -> Schema:
    """Return the form of a field that takes a mapping or a list, or an empty schema."""
    for choice in schema.get("anyOf", [schema]):
        form: Schema = choice
        if "$ref" in choice:
            form = definitions[choice["$ref"].rpartition("/")[2]]
        if form.get("type") == kind:
            return form
    return {}
