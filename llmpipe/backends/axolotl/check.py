"""Check a configuration against the Axolotl that is installed, as strictly as our own fields.

Axolotl itself drops a key that it does not know without a word. Here such a key is a problem, at
every level, the keys of the block's ``plugins`` included; so is what Axolotl's own validators
refuse. Its config model takes seconds to import, so it is asked in a child process
(`llmpipe.backends.axolotl.check_subprocess`) that waits for further questions, as a sweep has them,
and the answer is kept on disk by Axolotl's version, the packages installed beside it, the device
and the configuration. What somebody's own plugin says is not kept: its source may change.

It does not load models or data.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.config import OWN_PLUGINS, BlockProblem
from llmpipe.backends.axolotl.modules import python_path
from llmpipe.backends.device import detect
from llmpipe.errors import StageError

CHECK_VERSION = 3
"""Part of the memo's key: raised when the child would answer differently."""

CHILD = "llmpipe.backends.axolotl.check_subprocess"

MARK = "llmpipe-answer "
"""How the line begins that holds the child's answer."""

NOT_LOADED = "a plugin cannot be loaded"
"""How the answer begins where a plugin is not there, or fails."""

QUIET = {"AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}


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


def check_block(
    block: Mapping[str, Any],
    document: Mapping[str, Any],
    *,
    memo_dir: Path,
    dataset: Mapping[str, Any] | None = None,
    modules: str | None = None,
) -> CheckResult:
    """Check a block and its document; ask Axolotl only what this version was not asked before.

    Args:
        block: what a person wrote. All of its keys must be known, those too that are left out of
            the document because of the machine.
        document: what Axolotl is to run with it (`llmpipe.backends.axolotl.config`).
        memo_dir: where answers are kept.
        dataset: what stands under a stage's ``dataset:``, keys of an entry of ``datasets``.
        modules: the ``PYTHONPATH`` of the training; ours, if None.

    Raises:
        StageError: the child that asks Axolotl died; its last lines are in the message.
    """
    version = installed_version()
    if version is None:
        return CheckResult(installed=False)
    question = json.dumps(
        {
            "check": CHECK_VERSION,
            "axolotl": version,
            "installed": _installed(),
            "device": dataclasses.asdict(detect()),
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
            _keep(memo, found)
    problems = [BlockProblem(**{**problem, "path": tuple(problem["path"])}) for problem in found]
    return CheckResult(problems, version=version)


def _lasts(block: Mapping[str, Any], found: list[dict[str, Any]]) -> bool:
    """Whether an answer holds as long as what it is kept by: no foreign code had a say in it."""
    named = block.get("plugins") or []
    plugins = named if isinstance(named, list) else [named]
    known = all(str(p).startswith("axolotl.") or p in OWN_PLUGINS for p in plugins)
    return known and not any(problem["message"].startswith(NOT_LOADED) for problem in found)


def _installed() -> str:
    """Return a digest of the names and versions of all packages that are installed."""
    folders = filter(Path.is_dir, map(Path, sys.path))
    found = (package.name for folder in folders for package in folder.glob("*.*-info"))
    names = {name for name in found if name.endswith((".dist-info", ".egg-info"))}
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()


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
    """A process that imports Axolotl once for many questions."""

    def __init__(self) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", CHILD],
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
        marked = (line for line in stdout if line.startswith(MARK))
        line = next(marked, None)
        return line.removeprefix(MARK) if line else None

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
