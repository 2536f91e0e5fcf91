"""The launchers of the installed Axolotl, read from the source of its command line.

Nothing is imported: that would take many seconds.
"""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path

_SOURCE = "axolotl/cli/main.py"


def installed_launchers() -> tuple[str, ...]:
    """Return what ``axolotl train --launcher`` takes, or () where this cannot be found out."""
    try:
        place = importlib.metadata.distribution("axolotl").locate_file(_SOURCE)
        tree = ast.parse(Path(str(place)).read_bytes())
    except (importlib.metadata.PackageNotFoundError, OSError, SyntaxError, ValueError):
        return ()
    train = next(
        (n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "train"), None
    )
    for option in train.decorator_list if train else ():
        if isinstance(option, ast.Call) and _first_text(option) == "--launcher":
            return _choices(option)
    return ()


def _first_text(call: ast.Call) -> object:
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) else None


def _choices(option: ast.Call) -> tuple[str, ...]:
    """Return the texts in the list of the option's ``click.Choice``."""
    given = next((word.value for word in option.keywords if word.arg == "type"), None)
    if not isinstance(given, ast.Call) or not given.args or not isinstance(given.args[0], ast.List):
        return ()
    named = (e.value for e in given.args[0].elts if isinstance(e, ast.Constant))
    return tuple(name for name in named if isinstance(name, str))
