"""A process that is measured: it is asked one thing after the other, and times itself.

Requests and replies are lines of JSON on its standard input and output, so that a contender may run
in another virtual environment. What it loads stays loaded between requests.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.rag.setting import ROOT, Setting

Reply = dict[str, Any]


class ContenderError(Exception):
    """A contender ended: its figures would mean nothing."""


class Contender:
    """One of those that are measured side by side. Use it as a context manager."""

    def __init__(
        self, name: str, module: str, setting: Setting, *, python: Path | None = None, **given: Any
    ) -> None:
        """Start it.

        Args:
            name: what tables call it.
            module: which module of `benchmarks.rag.contenders` it is.
            setting: threads and environment.
            python: the Python of its virtual environment, when it is not ours.
            given: what the module is told at its start.
        """
        self.name = name
        self._log = setting.folder / f"{name}-{module}.log".replace(" ", "-")
        told = json.dumps({"threads": setting.threads, "model": str(setting.model), **given})
        program = str(python or setting.python)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-m", f"benchmarks.rag.contenders.{module}", told],
                cwd=ROOT,
                env=setting.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def ask(self, request: str, **fields: Any) -> Reply:
        """Have something done and return the reply.

        Raises:
            ContenderError: it ended instead.
        """
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"request": request, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)  # until it has told its log all
            raise ContenderError(f"{self.name} failed at {request}:\n{self._end_of_log()}")
        reply: Reply = json.loads(line)
        return reply

    def _end_of_log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-1500:].strip()


@contextmanager
def together(*contenders: Contender) -> Iterator[None]:
    """Have several for as long as the block lasts."""
    with ExitStack() as stack:
        for contender in contenders:
            stack.enter_context(contender)
        yield


def in_turn(
    contenders: Sequence[Contender], rounds: int, request: str, **fields: Any
) -> dict[str, list[Reply]]:
    """Ask all of them the same, one after the other, several times over."""
    replies: dict[str, list[Reply]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        # The second one runs on a machine that the first one has warmed up, so they take turns.
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            replies[contender.name].append(contender.ask(request, **fields))
    return replies


def medians(replies: Mapping[str, Iterable[Reply]], figure: str = "seconds") -> dict[str, float]:
    """Return the median of a figure for each of them."""
    return {
        name: statistics.median(reply[figure] for reply in found) for name, found in replies.items()
    }
