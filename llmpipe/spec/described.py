"""The JSON Schema of a config class, with its docstrings as descriptions."""

from __future__ import annotations

import ast
import inspect
import textwrap
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec


def described_schema(cls: type[msgspec.Struct]) -> dict[str, Any]:
    """Return msgspec's schema of a class, with the attribute docstrings as descriptions."""
    schema = msgspec.json.schema(cls)
    for struct in _structs(cls):
        definition = schema["$defs"].get(struct.__name__)
        if definition is None:
            continue
        definition.pop("title", None)
        if "description" in definition:
            definition["description"] = prose(definition["description"])
        if tag := struct.__struct_config__.tag_field:
            told = f"Selects this {tag}." if "description" in definition else ""
            definition["properties"][tag].setdefault("description", told)
        for name, text in _field_docs(struct).items():
            if name in definition["properties"]:
                definition["properties"][name].setdefault("description", prose(text))
    return schema


def prose(docstring: str) -> str:
    """Return a docstring as Markdown: each paragraph on one line, code as it stands."""
    paragraphs = inspect.cleandoc(docstring).replace("``", "`").split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith(" ") else " ".join(paragraph.split())
        for paragraph in paragraphs
    )


def _structs(cls: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """List a config class and every struct class that its fields hold."""
    found: list[type[msgspec.Struct]] = []

    def visit(info: Any) -> None:
        if isinstance(info, msgspec.inspect.StructType):
            if info.cls in found:
                return
            found.append(info.cls)
        for name in getattr(info, "__struct_fields__", ()):
            value = getattr(info, name)
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, (msgspec.inspect.Type, msgspec.inspect.Field)):
                    visit(item)

    visit(msgspec.inspect.type_info(cls))
    return found


def _field_docs(cls: type) -> dict[str, str]:
    """Read the docstrings below the fields of a class and of its bases."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            docs |= own_field_docs(base)
    return docs


@cache  # every kind has the same bases, and finding a class means parsing its file
def own_field_docs(cls: type) -> dict[str, str]:
    """Return the docstrings below the fields of a class, without those of its bases."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except OSError:  # a plug-in's class, installed without its source
        return {}
    tree = ast.parse(source).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        statement.target.id: following.value.value
        for statement, following in pairwise(tree.body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
        and isinstance(following.value.value, str)
    }
