"""Check a configuration against the installed Axolotl, as strictly as our own fields.

Axolotl silently drops unknown keys. Here they are problems, at every level and including the keys
of the block's ``plugins``. So are the errors of Axolotl's own validators. Axolotl's config model
takes seconds to import, so a subprocess (`llmpipe.backends.axolotl.check_subprocess`) answers and
waits for more questions, for example of a sweep. Answers are cached on disk by Axolotl's version,
the installed packages, the device and the configuration. Answers that depend on a user's own plugin
are not cached, because its source may change.

This does not load models or data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.answering import AnsweringChild, NoAnswerError, keep_answer
from llmpipe.backends.axolotl.config import OWN_PLUGINS, BlockProblem
from llmpipe.backends.axolotl.modules import python_path
from llmpipe.backends.device import Device, detect
from llmpipe.errors import StageError

CHECK_VERSION = 4
"""Part of the cache key. Raise it if the subprocess would answer differently."""

_CHILD = AnsweringChild("llmpipe.backends.axolotl.check_subprocess")

NOT_LOADED = "a plugin cannot be loaded"
"""The beginning of the message if a plugin is missing or fails."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """All problems found. ``installed`` says whether Axolotl is installed."""

    problems: list[BlockProblem] = field(default_factory=list)
    installed: bool = True
    version: str | None = None


def installed_version() -> str | None:
    """Return the version of the installed Axolotl from package metadata, or None."""
    try:
        return importlib.metadata.version("axolotl")
    except importlib.metadata.PackageNotFoundError:
        return None


def check_block(
    block: Mapping[str, Any],
    document: Mapping[str, Any],
    *,
    memo_dir: Path,
    dataset: Mapping[str, Any] | None = None,
    modules: str | None = None,
    device: Device | None = None,
) -> CheckResult:
    """Check a block and its document, using cached answers where possible.

    Args:
        block: The block that the user wrote. All its keys must be known, also those that are left
            out of the document because of the machine.
        document: The compiled configuration (`llmpipe.backends.axolotl.config`).
        memo_dir: The folder of cached answers.
        dataset: The stage's ``dataset:``, keys of an entry of ``datasets``.
        modules: The ``PYTHONPATH`` of the training; None for ours.
        device: What the training will run on; None for this machine's.

    Raises:
        StageError: The subprocess died; its last lines are in the message.
    """
    version = installed_version()
    if version is None:
        return CheckResult(installed=False)
    question = json.dumps(
        {
            "check": CHECK_VERSION,
            "axolotl": version,
            "installed": _installed(),
            "device": dataclasses.asdict(device or detect()),
            "elsewhere": device is not None and device.kind != detect().kind,
            "document": document,
            "block": block,
            "dataset": dataset or {},
            "modules": python_path({}) if modules is None else modules,
        },
        sort_keys=True,
        default=str,
    )
    digest = hashlib.sha256(question.encode()).hexdigest()
    memo = memo_dir / f"axolotl-check-{digest}.json"
    try:
        found = json.loads(memo.read_text("utf-8"))
    except (OSError, ValueError):
        found = _ask_child(question)
        if _lasts(block, found):
            keep_answer(memo, found)
    problems = [BlockProblem(**{**problem, "path": tuple(problem["path"])}) for problem in found]
    return CheckResult(problems, version=version)


def _lasts(block: Mapping[str, Any], found: list[dict[str, Any]]) -> bool:
    """Return whether an answer can be cached: no user code contributed to it."""
    named = block.get("plugins") or []
    plugins = named if isinstance(named, list) else [named]
    known = all(str(p).startswith("axolotl.") or p in OWN_PLUGINS for p in plugins)
    return known and not any(problem["message"].startswith(NOT_LOADED) for problem in found)


def _installed() -> str:
    """Return a digest of the names and versions of all installed packages."""
    folders = filter(Path.is_dir, map(Path, sys.path))
    found = (package.name for folder in folders for package in folder.glob("*.*-info"))
    names = {name for name in found if name.endswith((".dist-info", ".egg-info"))}
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


def _ask_child(question: str) -> list[dict[str, Any]]:
    """Send a question to the subprocess and return its answer."""
    try:
        answer: list[dict[str, Any]] = _CHILD.ask(question)
    except NoAnswerError as error:
        raise StageError(
            "Axolotl could not be asked about its keys:\n"
            + "\n".join(str(error).splitlines()[-5:]),
            hint="does `axolotl --version` run? allow_unknown_axolotl: true continues unchecked",
        ) from None
    return answer
