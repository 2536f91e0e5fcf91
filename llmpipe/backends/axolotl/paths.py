"""Find the paths in an Axolotl block, and texts that name a file without being written as a path.

A path starts with ``./``, ``../``, ``/`` or ``~``. Only then is it resolved against the spec, read
as an input and part of the cache key. Axolotl itself treats any text as a path if such a file is in
its working folder, and otherwise silently as something else: the name of a template file becomes
the template. This module therefore checks a text by its key and by the files beside the spec.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.config import BlockProblem, KeyPath
from llmpipe.backends.axolotl.modules import search_path
from llmpipe.backends.axolotl.sharding import ZERO
from llmpipe.backends.axolotl.templates import JINJA, template_problem
from llmpipe.canonical import leaves

FILES = frozenset({"deepspeed", "resume_from_checkpoint", "torchdistx_path"})
"""Keys whose text Axolotl only reads as a file or folder."""

TEMPLATES = frozenset({"chat_template_jinja"})
"""Keys whose text is a Jinja template if no file has that name."""

MODELS = frozenset({"base_model_config", "lora_model_dir", "processor_config", "tokenizer_config"})
"""Keys that take a folder or a hub repository."""

FOLDERS = frozenset(
    {"lora_model_dir", "processor_config", "resume_from_checkpoint", "tokenizer_config"}
)
"""Keys whose path must be a folder."""

SHORT_NAMES = {"deepspeed": tuple(ZERO)}
"""Texts that llmpipe replaces by a file of its own."""

MODULES = frozenset({"plugins", "reward_funcs"})
"""Keys that take names of Python objects: ``module.Name``."""

REPORTING = frozenset({"mlflow_tracking_uri"})
"""Keys that take a folder for reports, or an address."""

_PATH_BY_NAME = re.compile(r"(^|_)(path|paths|dir|dirs|file|files|folder)$")
_FILE_NAME = re.compile(
    r"\.(bin|cfg|csv|gguf|ini|j2|jinja2?|jsonl?|md|model|parquet|pt|pth|py|safetensors|toml|txt|ya?ml)$",
    re.IGNORECASE,
)
_LONGEST = 255
"""The length of a text above which it is not looked up on disk."""

_NO_PATH = re.compile(
    r"^(hub|wandb|mlflow|comet|trackio|swanlab|otel)_|^push_dataset_to_hub$"
    r"|tokens|system_message|^chat_template_kwargs$"
)
"""Keys that never name an input file of a training."""

_TEMPLATE = "it is a Jinja template that writes `messages`, as chat_template.jinja of a model does"

HOW = "a path starts with ./, ../, / or ~"


def is_path(value: object) -> bool:
    """Return whether a value is a path: it starts with ``./``, ``../``, ``/`` or ``~``."""
    return isinstance(value, str) and value.startswith(("./", "../", "/", "~"))


def holds_no_path(where: KeyPath) -> bool:
    """Return whether a key, or one above it, contains names, tokens or prose and never paths."""
    names = [str(step) for step in where]
    return any(_NO_PATH.search(name) and not _PATH_BY_NAME.search(name) for name in names)


def paths_in(block: Mapping[str, Any]) -> dict[KeyPath, str]:
    """Return every path in a block, as {keys: value as written}."""
    return {
        where: value
        for where, value in leaves(block)
        if is_path(value) and not holds_no_path(where)
    }


def replace_paths(block: Mapping[str, Any], resolved: Mapping[KeyPath, str]) -> dict[str, Any]:
    """Return a copy of the block with the values at the given keys replaced."""
    return {key: _replaced(value, (key,), resolved) for key, value in block.items()}


def without_path(value: Any, path: KeyPath) -> Any:
    """Return a copy without the key at a path."""
    step, rest = path[0], path[1:]
    if isinstance(value, list):
        return [without_path(item, rest) if i == step else item for i, item in enumerate(value)]
    if not isinstance(value, dict) or step not in value:
        return value
    if rest:
        return {**value, step: without_path(value[step], rest)}
    return {key: item for key, item in value.items() if key != step}


def bare_paths(block: Mapping[str, Any], folder: Path, modules: str) -> Iterator[BlockProblem]:
    """Yield texts that name a file in ``folder`` but are not written as a path, or name no file.

    Args:
        block: Axolotl's keys, from a stage's block or a file.
        folder: The spec's folder, where relative paths start.
        modules: The training's ``PYTHONPATH`` (`modules.python_path`).
    """
    for where, value in leaves(block):
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            continue
        complaint = None
        if _key(where) in MODULES:
            complaint = _module_problem(value, folder, modules)
        elif holds_no_path(where):
            complaint = _reporting_problem(_key(where), value)
        elif value not in SHORT_NAMES.get(_key(where), ()):
            complaint = None if is_path(value) else _path_problem(_key(where), value, folder)
            complaint = complaint or _content_problem(_key(where), value, folder)
        if complaint:
            yield BlockProblem(where, *complaint)


def beside_file(block: Mapping[str, Any], file: Path) -> Iterator[BlockProblem]:
    """Yield texts of an Axolotl ``file`` that name what is beside it: paths start at the spec."""
    for where, value in leaves(block):
        key = _key(where)
        if not isinstance(value, str) or not value.strip() or is_path(value):
            continue
        if key in MODULES or holds_no_path(where) or value in SHORT_NAMES.get(key, ()):
            continue
        if _may_be_path(key, value) and _lies(file.parent, value):
            yield BlockProblem(
                where,
                f"{value} is next to {file.name}, but is not written as a path",
                f"write {'.'.join(map(str, where))} in the stage's axolotl block, as a path "
                "relative to the spec",
            )


def missing_paths(block: Mapping[str, Any], folder: Path) -> Iterator[BlockProblem]:
    """Yield the texts that Axolotl, run in ``folder``, would read as a file that does not exist."""
    for where, value in leaves(block):
        key = _key(where)
        if not isinstance(value, str) or not value.strip():
            continue
        if complaint := _content_problem(key, value, folder):
            yield BlockProblem(where, *complaint)
        if _lies(folder, value):
            continue
        if _must_exist(key, value) or (key in MODELS and is_path(value)):
            yield BlockProblem(where, f"no such file or folder: {_short(value)}", _advice(key))


def _replaced(value: Any, where: KeyPath, resolved: Mapping[KeyPath, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(item, (*where, key), resolved) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, (*where, i), resolved) for i, item in enumerate(value)]
    return resolved.get(where, value)


def _key(where: KeyPath) -> str:
    """Return the innermost key; for an item of a list, the key of the list."""
    return next((step for step in reversed(where) if isinstance(step, str)), "")


def _path_problem(key: str, value: str, folder: Path) -> tuple[str, str] | None:
    """Return message and hint for a text that is not written as a path."""
    if key == "chat_template":
        return None  # `_content_problem` explains
    if _may_be_path(key, value) and _lies(folder, value):
        return f"{value} is next to the spec, but is not written as a path", f"write ./{value}"
    if _must_exist(key, value):
        return f"no such file or folder: {_short(value)}", f"{HOW}; {_advice(key)}"
    return None


def _may_be_path(key: str, value: str) -> bool:
    """Return whether a text is a path where such a file exists: by its key, or by its look."""
    reads_path = key in FILES | TEMPLATES | MODELS or bool(_PATH_BY_NAME.search(key))
    return reads_path or "/" in value or bool(_FILE_NAME.search(value))


def _content_problem(key: str, value: str, folder: Path) -> tuple[str, str] | None:
    """Return message and hint for what a key cannot be: the wrong kind of file, no template."""
    found = Path(folder / os.path.expanduser(value)) if _lies(folder, value) else None  # noqa: PTH111
    if key == "chat_template" and found and _may_be_path(key, value):
        named = value if is_path(value) else f"./{value}"
        return (
            f"{_short(value)} is a file; chat_template takes the name of a template",
            f"write chat_template: jinja and chat_template_jinja: {named}",
        )
    if found and found.is_dir() and key in TEMPLATES | {"deepspeed"}:
        return f"{_short(value)} is a folder, but Axolotl reads a file here", "name the file"
    if found and found.is_file() and key in FOLDERS:
        return f"{_short(value)} is a file, but Axolotl reads a folder here", "name its folder"
    if key not in TEMPLATES or not (found or JINJA.search(value)):
        return None
    try:
        problem = template_problem(found.read_text("utf-8") if found else value)
    except (OSError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
    named = _short(value) if found else "the template"
    return (f"{named} is not a chat template: {problem}", _TEMPLATE) if problem else None


def _reporting_problem(key: str, value: str) -> tuple[str, str] | None:
    """Return message and hint for a report folder that would lie in the training's own folder."""
    if key in REPORTING and value.startswith(("./", "../")):
        message = f"{value} would be in the training's own folder, which is not kept"
        return message, "write an absolute path"
    return None


def _must_exist(key: str, value: str) -> bool:
    """Return whether a text can only be the path of an existing file or folder."""
    if key in FILES:
        return True
    if key in TEMPLATES:  # a template without an expression would ignore the chat
        return not JINJA.search(value)
    return key in MODELS and (bool(_FILE_NAME.search(value)) or value.count("/") > 1)


def _module_problem(value: str, folder: Path, modules: str) -> tuple[str, str] | None:
    if is_path(value) or "/" in value or value.endswith(".py"):
        name = Path(value).stem
        return (
            f"{value} is a file; Axolotl expects the name of a Python object here",
            f"write {name}.NAME, and set launch.env.PYTHONPATH to the folder of {name}.py",
        )
    top = value.partition(".")[0]
    found = next((name for name in (f"{top}.py", top) if _lies(folder, name)), None)
    if found is None or PathFinder.find_spec(top, search_path(modules)):
        return None
    launch = f"launch: {{env: {{PYTHONPATH: {folder.absolute()}}}}}"
    return (
        f"{found} is next to the spec, where the training process does not search for modules",
        f"install it, or write {launch} in the stage (llmpipe does not notice changes in it)",
    )


def _lies(folder: Path, value: str) -> bool:
    """Return whether a file or folder of that name exists."""
    if len(value) > _LONGEST or "\n" in value:
        return False
    try:
        return (folder / os.path.expanduser(value)).exists()  # noqa: PTH111 (that of pathlib raises)
    except OSError:
        return False


def _advice(key: str) -> str:
    if key in TEMPLATES:
        return "an inline template contains {{ … }} or {% … %}"
    if key in MODELS:
        return "write a hub repository as org/name"
    if key in SHORT_NAMES:
        return f"it is relative to the spec; known by name: {', '.join(SHORT_NAMES[key])}"
    return "it is relative to the spec"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}…"
