"""Which code makes each stage kind's artifacts, by digest: changing it is a decision about VERSION.

A cache key holds a kind's ``VERSION``, not its code. Who changes code that makes artifacts either
raises the ``VERSION`` of the kinds that it makes them for, or finds that they come out the same; either
way ``make kind-sources`` then rewrites ``kind_sources.json``, and the change shows in the commit.
Comments, docstrings and layout do not count.
"""

from __future__ import annotations

import ast
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmpipe.registry import KINDS, stage_class

RECORD = Path(__file__).parent / "kind_sources.json"
ROOMS = ("stages", "formats", "backends", "evaluation", "parity", "documents", "retrieval")
"""The packages whose code shapes artifacts."""

COPIED = {"llmpipe.backends.axolotl.training": "axolotl_plugins"}
"""Modules that copy a folder beside them for another program to import."""


def current() -> dict[str, Any]:
    """Return the version and the modules of every kind, and the digest of every such module."""
    kinds = {kind: modules_of(kind) for kind in sorted(KINDS)}
    names = sorted({name for modules in kinds.values() for name in modules})
    return {
        "kinds": {
            kind: {"version": stage_class(kind).VERSION, "modules": sorted(modules)}
            for kind, modules in kinds.items()
        },
        "modules": {name: code_digest(path_of(name)) for name in names},
    }


def modules_of(kind: str) -> set[str]:
    """Return the modules of a kind and its variants, and those that they import, near or far."""
    variants = stage_class(kind).variants
    classes = [KINDS[kind], *(variants.classes.values() if variants else ())]
    waiting = [path.partition(":")[0] for path in classes]
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += imported(module)
    return found


def imported(module: str) -> list[str]:
    """Return the modules of `ROOMS` that a module imports."""
    names = copied(module)
    for node in ast.walk(ast.parse(path_of(module).read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [
        name
        for name in names
        if name.startswith(tuple(f"llmpipe.{r}" for r in ROOMS)) and exists(name)
    ]


def copied(module: str) -> list[str]:
    """Return the modules that a module has another program import."""
    folder = COPIED.get(module)
    if folder is None:
        return []
    root = path_of(module).parent
    files = sorted(root.joinpath(folder).rglob("*.py"))
    parts = (file.relative_to(root).with_suffix("").parts for file in files)
    package = module.rpartition(".")[0]
    return [".".join((package, *part)).removesuffix(".__init__") for part in parts]


def exists(module: str) -> bool:
    """Return whether a dotted name is that of a module, not of something in one."""
    base = Path(path_of("llmpipe")).parent.joinpath(*module.split(".")[1:])
    return base.is_dir() or base.with_suffix(".py").is_file()


def path_of(module: str) -> Path:
    """Return the file of a module."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin)


def code_digest(path: Path) -> str:
    """Return a digest of a file's code, whatever its comments, docstrings and layout."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [s for s in body if not is_text(s)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


def is_text(statement: ast.stmt) -> bool:
    """Return whether a statement is a docstring."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def differences() -> list[str]:
    """Say which modules are not as recorded, and of which kinds that is a question."""
    before, now = json.loads(RECORD.read_text("utf-8")), current()
    changed = {
        name
        for name in {*before["modules"], *now["modules"]}
        if before["modules"].get(name) != now["modules"].get(name)
    }
    found = []
    for kind, entry in now["kinds"].items():
        was = before["kinds"].get(kind, {})
        touched = sorted(changed & {*entry["modules"], *was.get("modules", [])})
        if touched or was != entry:
            version = f"VERSION {was.get('version')} → {entry['version']}"
            found.append(f"{kind} ({version}): {', '.join(touched) or 'its modules'}")
    return found


if __name__ == "__main__":
    RECORD.write_text(json.dumps(current(), indent=1, sort_keys=True) + "\n", "utf-8")
