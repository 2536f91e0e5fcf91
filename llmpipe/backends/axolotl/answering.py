"""Ask subprocesses that import Axolotl once, which takes seconds, and answer many questions.

A question and its answer are JSON. Each question is answered in a fork, so that what it changes in
Axolotl ends with it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

MARK = "llmpipe-answer "
"""The beginning of the line with the subprocess's answer."""

IDLE = 5.0
"""Seconds without a question after which a subprocess ends: it takes hundreds of megabytes."""

QUIET = {"AXOLOTL_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}


class NoAnswerError(Exception):
    """The subprocess ended without an answer; the message is its error output."""


def keep_answer(file: Path, answer: Any) -> None:
    """Write an answer to a file of its own, so that no reader finds a part of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.write_text(json.dumps(answer), "utf-8")
    draft.replace(file)


class AnsweringChild:
    """A module that answers questions (`answer_in_forks`), in a subprocess that starts when needed.

    Args:
        module: What the subprocess runs.
        environment: Variables that it has besides those of this process.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._environment = {**QUIET, **(environment or {})}
        self.process: subprocess.Popen[str] | None = None
        """The subprocess; None before the first question, and after it was forgotten."""
        self._errors: IO[str] | None = None
        self._lock = threading.Lock()

    def ask(self, question: str) -> Any:
        """Return the answer to a question; both are JSON, the answer is decoded.

        Raises:
            NoAnswerError: The subprocess ended without one.
        """
        with self._lock:
            for _ in range(2):  # an idle one may have ended; then start another
                process = self.process = self.process or self._start()
                try:
                    line = _answer_of(process, question)
                except BaseException:  # its answer would be taken for that of the next question
                    self.forget()
                    process.kill()
                    raise
                if line is not None:
                    return json.loads(line)
                process.wait()
                self.forget()
            assert self._errors is not None
            self._errors.seek(0)
            raise NoAnswerError(self._errors.read().strip())

    def forget(self) -> None:
        """Leave the subprocess, which ends by itself; the next question starts another."""
        self.process = None

    def _start(self) -> subprocess.Popen[str]:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        return subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env={**os.environ, **self._environment},
        )


def _answer_of(process: subprocess.Popen[str], question: str) -> str | None:
    """Send a question; return the answer, or None if the subprocess ended without one."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(question + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = next((line for line in process.stdout if line.startswith(MARK)), None)
    return line.removeprefix(MARK) if line else None


def answer_in_forks(answer: Callable[[Any], Any]) -> int:
    """Answer questions, one a line on standard input, until they end or `IDLE` seconds pass.

    Returns:
        The exit status: 1 after a question whose answer raised an exception.
    """
    while select.select([sys.stdin], [], [], IDLE)[0]:
        question = sys.stdin.readline()
        if not question:
            break
        fork = os.fork()
        if fork == 0:
            _print_answer(answer, question)
        if os.waitpid(fork, 0)[1]:
            return 1
    return 0


def _print_answer(answer: Callable[[Any], Any], question: str) -> NoReturn:
    """Print the answer as one marked line, and exit."""
    status = 1
    try:
        print(f"\n{MARK}{json.dumps(answer(json.loads(question)))}", flush=True)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
