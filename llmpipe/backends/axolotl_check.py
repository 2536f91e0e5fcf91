"""Check an Axolotl block against the Axolotl that is installed, as strictly as our own fields.

Axolotl itself drops a key that it does not know without a word. Here such a key is a problem, at
every level, the keys of the block's ``plugins`` included; so is what Axolotl's own validators
refuse. Its config model takes seconds to import, so it is asked in a child process (this very
module, run with ``-m``) that waits for further questions, as a sweep has them, and the answer is
kept on disk by Axolotl's version and the block.

It does not load models or data, and it does not know which GPU will train.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import re
import select
import subprocess
import sys
import tempfile
import traceback
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from llmpipe.backends.axolotl_config import KeyPath, with_defaults
from llmpipe.errors import StageError, did_you_mean

CHECK_VERSION = 1
"""Part of the memo's key: raised when this module would answer differently."""

QUIET = {"AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}

IDLE = 5.0
"""Seconds after which the child ends when it is not asked again: it holds hundreds of megabytes."""

PLACEHOLDERS: Mapping[str, Any] = {
    "base_model": "base",
    "datasets": [{"path": "train.jsonl", "ds_type": "json", "type": "chat_template"}],
    "output_dir": "out",
    "val_set_size": 0,
}
"""What llmpipe adds to a stage's block before it runs, so that Axolotl has a whole to look at."""


@dataclass(frozen=True, slots=True)
class BlockProblem:
    """One thing that Axolotl would not take: the path of keys inside the block, and why."""

    path: KeyPath
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """All problems found. ``installed`` is False where there is no Axolotl to ask."""

    problems: list[BlockProblem] = field(default_factory=list)
    installed: bool = True
    version: str | None = None


def installed_version() -> str | None:
    """Give the version of the installed Axolotl, from package metadata, or None."""
    try:
        return importlib.metadata.version("axolotl")
    except importlib.metadata.PackageNotFoundError:
        return None


def check_block(block: Mapping[str, Any], *, memo_dir: Path, whole: bool = False) -> CheckResult:
    """Check a block; ask Axolotl only when this version was not asked the same before.

    ``block`` is what stands under a stage's ``axolotl:`` (over its ``axolotl_file``); with
    ``whole`` it is a complete Axolotl file and nothing is added to it.

    Raises:
        StageError: the child that asks Axolotl died; its last lines are in the message.
    """
    version = installed_version()
    if version is None:
        return CheckResult(installed=False)
    question = json.dumps(
        {"check": CHECK_VERSION, "axolotl": version, "whole": whole, "block": block},
        sort_keys=True,
        default=str,
    )
    digest = hashlib.sha256(question.encode()).hexdigest()
    memo = memo_dir / f"axolotl-check-{digest}.json"
    try:
        found = json.loads(memo.read_text("utf-8"))
    except (OSError, ValueError):
        found = _ask_child(question)
        _keep(memo, found)
    problems = [BlockProblem(tuple(p["path"]), p["message"], p["hint"]) for p in found]
    return CheckResult(problems, version=version)


def _ask_child(question: str) -> list[dict[str, Any]]:
    """Put the question to the child and give its answer."""
    for _ in range(2):  # one that had nothing to do has ended and is followed by another
        child = _child()
        line = child.ask(question)
        if line is not None:
            answer: list[dict[str, Any]] = json.loads(line)
            return answer
        child.process.wait()
        _child.cache_clear()
    raise StageError(
        f"Axolotl could not be asked about its keys:\n{child.last_words()}",
        hint="does `axolotl --version` run? allow_unknown_axolotl: true goes on unchecked",
    )


class _Child:
    """This module in a process of its own, which imports Axolotl once for many questions."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **QUIET},
        )

    def ask(self, question: str) -> str | None:
        """Give the answer as JSON; None where the child has ended without one."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(question + "\n")
            stdin.flush()
        except BrokenPipeError:
            return None
        marked = (line for line in stdout if line.startswith(_MARK))
        line = next(marked, None)
        return line.removeprefix(_MARK) if line else None

    def last_words(self) -> str:
        """Give the last lines that it wrote about what was wrong."""
        self._errors.seek(0)
        return "\n".join(self._errors.read().strip().splitlines()[-5:])


@functools.cache
def _child() -> _Child:
    return _Child()


def _keep(memo: Path, found: list[dict[str, Any]]) -> None:
    """Write a memo so that a reader sees all of it or nothing."""
    memo.parent.mkdir(parents=True, exist_ok=True)
    draft = memo.with_name(f"{memo.name}.{os.getpid()}")
    draft.write_text(json.dumps(found), "utf-8")
    draft.replace(memo)


# What follows runs in the child.

_MARK = "llmpipe-answer "


def main() -> int:
    """Answer questions, one a line on standard input, until nobody asks any more.

    Each is answered in a fork: what plugins do to Axolotl does not reach the next question.
    """
    list(_problems({}, whole=False, version=""))  # what it imports on the way takes seconds: once
    while select.select([sys.stdin], [], [], IDLE)[0]:
        question = sys.stdin.readline()
        if not question:
            break
        fork = os.fork()
        if fork == 0:
            _answer(question)
        if os.waitpid(fork, 0)[1]:
            return 1
    return 0


def _answer(question: str) -> NoReturn:
    """Print the problems found as one marked line, and end."""
    status = 1
    try:
        asked = json.loads(question)
        found = _problems(asked["block"], whole=asked["whole"], version=asked["axolotl"])
        answer = [{"path": list(p.path), "message": p.message, "hint": p.hint} for p in found]
        print(f"\n{_MARK}{json.dumps(answer)}", flush=True)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _problems(block: dict[str, Any], *, whole: bool, version: str) -> Iterator[BlockProblem]:
    from axolotl.utils.dict import DictDefault

    document = dict(block) if whole else {**PLACEHOLDERS, **with_defaults(block)}
    try:
        model = _config_model(document)
    except Exception as error:  # a plugin is anybody's code and may fail in any way
        yield BlockProblem(("plugins",), f"a plugin cannot be loaded: {_one_line(error)}")
        return
    unknown = list(_unknown_keys(model, block, (), f"axolotl {version}"))
    yield from unknown
    ignored = {problem.path for problem in unknown}
    yield from _refused(DictDefault(document), block, ignored)


def _config_model(document: Mapping[str, Any]) -> Any:
    """Give Axolotl's config class, the fields of the document's plugins included."""
    from axolotl.utils.schemas.config import AxolotlInputConfig

    if not document.get("plugins"):
        return AxolotlInputConfig
    from axolotl.integrations.base import PluginManager
    from axolotl.integrations.config import merge_input_args

    manager = PluginManager.get_instance()
    for plugin in document["plugins"]:
        manager.register(plugin)
    missing = [p for p in document["plugins"] if p not in manager.plugins]
    if missing:
        raise ImportError(f"no plugin {missing[0]!r}")
    return merge_input_args()[1]


def _refused(document: Any, block: Any, ignored: set[KeyPath]) -> Iterator[BlockProblem]:
    """Let Axolotl validate the document; give what it refuses, less the keys found unknown."""
    from axolotl.utils.config import validate_config
    from pydantic import ValidationError

    try:
        validate_config(document)
    except ValidationError as error:
        seen = set()
        for found in error.errors(include_url=False, include_input=False):
            message = found["msg"].removeprefix("Value error, ")
            path = _path_in(block, found["loc"]) or _named_in(block, message)
            if path in ignored or (path, message) in seen:
                continue
            seen.add((path, message))
            yield BlockProblem(path, message)
    except Exception as error:  # Axolotl's validators also raise whatever they like
        message = _one_line(error)
        yield BlockProblem(_named_in(block, message), message)


def _path_in(block: Any, location: Iterable[str | int]) -> KeyPath:
    """Follow pydantic's location as far as the block goes; pass over names of union members."""
    path: list[str | int] = []
    for step in location:
        try:
            block = block[step]
        except (LookupError, TypeError):
            continue
        path.append(step)
    return tuple(path)


def _named_in(block: Mapping[str, Any], message: str) -> KeyPath:
    """Give the first key of the block that a message about the whole names, as its place."""
    words = re.findall(r"\w+", message)
    return next(((word,) for word in words if word in block), ())


def _unknown_keys(hint: Any, value: Any, where: KeyPath, owner: str) -> Iterator[BlockProblem]:
    """Yield the keys of ``value`` that the type ``hint`` does not know, at every level."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown_keys(_item_type(hint), item, (*where, index), owner)
        return
    if not isinstance(value, Mapping):
        return
    models = _models_in(hint)
    if not models:
        return  # an open mapping: Axolotl passes it on as it is
    attempts = [list(_unknown_in_model(model, value, where, owner)) for model in models]
    yield from min(attempts, key=len)


def _unknown_in_model(
    model: Any, value: Mapping[str, Any], where: KeyPath, owner: str
) -> Iterator[BlockProblem]:
    known = _known_keys(model)
    for key, item in value.items():
        if key in known:
            yield from _unknown_keys(known[key], item, (*where, key), owner)
            continue
        words = [name for name in known if str(key).split("_")[0] in name]
        more = f" ({owner} has {len(words)} keys that contain {str(key).split('_')[0]!r})"
        guess = did_you_mean(str(key), known)
        yield BlockProblem(
            (*where, key),
            f"unknown key {key!r}",
            f"{guess}{more if len(words) > 1 else ''}" if guess else f"{owner} has no such key",
        )


@functools.cache
def _known_keys(model: Any) -> dict[str, Any]:
    """Give every key that a pydantic model takes, by name or alias, with its type."""
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
"""Keys that Axolotl's loaders read although its model does not name them."""


def _models_in(hint: Any) -> list[Any]:
    """Give the pydantic models that a type may be; none when a plain mapping is as good."""
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
    """Give the type of a list's items, looking through optional and annotated types."""
    origin = typing.get_origin(hint)
    if origin in (typing.Annotated, typing.Union, types.UnionType):
        members = typing.get_args(hint)
        members = members[:1] if origin is typing.Annotated else members
        return next((t for t in map(_item_type, members) if t is not Any), Any)
    if origin in (list, typing.Sequence):
        return typing.get_args(hint)[0]
    return Any


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
