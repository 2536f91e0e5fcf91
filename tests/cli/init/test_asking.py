"""How somebody at a terminal is asked."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from init_command import compiled, init

from llmpipe.cli.init.asking import ask


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests in the background ignore it
            os.execv(sys.executable, [sys.executable, "-m", "llmpipe", "init", *arguments])
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._end)

    def answer(self, prompt: str, keys: str) -> None:
        """Wait for a prompt that was not there yet, and type."""
        self._read(until=prompt)
        self.seen = ""
        os.write(self._end, keys.encode())

    def interrupt(self, prompt: str) -> int:
        """Press Ctrl-C at a prompt, and again after a while, and give the exit code.

        One that comes between the show of a prompt and the wait for an answer is lost, to anybody.
        """
        self._read(until=prompt)
        for _ in range(10):
            os.write(self._end, b"\x03")
            with suppress(AssertionError):
                self._read(until=None, seconds=6)
                break
        return self.ends()

    def ends(self) -> int:
        """Wait for the end, and give the exit code."""
        self._read(until=None)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, until: str | None, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while until is None or until not in self.seen:
            ready, _, _ = select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{until!r} is not in {self.seen!r}"
            try:
                text = os.read(self._end, 1 << 16).decode("utf-8", "replace")
            except OSError:  # its other end is closed
                text = ""
            if not text:
                assert until is None, f"{until!r} is not in {self.seen!r}"
                return
            self.seen += text.replace("\r\n", "\n")


def test_a_terminal_is_asked(folder: Path) -> None:
    """A bad answer is asked again with the reason, an empty one is the default, a number chooses."""
    with Terminal() as terminal:
        terminal.answer("Your data [.]: ", "doks\n")
        terminal.answer("did you mean 'docs'?\nYour data [.]: ", "docs\n")
        terminal.answer("Which [answer]: ", "3\n")
        terminal.answer("'3' is none of answer, teach\nWhich [answer]: ", "teach\n")
        terminal.answer("--answer COLUMN\nWhich [answer]: ", "\n")
        assert terminal.ends() == 0
        assert "written: spec.yaml" in terminal.seen
    assert [node.kind for node in compiled().nodes.values()][-1] == "rag"


def test_whoever_has_had_enough_leaves_no_trace(folder: Path) -> None:
    """Ctrl-C ends in 130, with nothing written and no traceback."""
    before = sorted(folder.rglob("*"))
    with Terminal("new", "--data", "docs") as terminal:
        assert terminal.interrupt("Which [answer]: ") == 130
        assert "Traceback" not in terminal.seen
    assert sorted(folder.rglob("*")) == before


Keys = Callable[..., list[str]]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Somebody at the terminal who types what is given here; the prompts are kept."""

    def types(*answers: str | Exception) -> list[str]:
        left, prompts = iter(answers), []

        def typed(prompt: str) -> str:
            prompts.append(prompt)
            answer = next(left)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr("builtins.input", typed)
        monkeypatch.setattr("llmpipe.cli.init.asking.at_terminal", lambda: True)
        return prompts

    return types


def test_columns_are_asked_for(
    german: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where rows do not tell by themselves; what options have told is not asked."""
    prompts = keys("2", "", "anwort", "antwort", "")
    assert init("--data", "docs/odd.jsonl") == 0
    which, first, *again, last = prompts
    assert which == "Which [answer]: "
    assert [first, *again] == 3 * ["Column with the answer: "]
    assert last == "Column with the question [frage]: "
    said = capsys.readouterr().out
    assert "an answer is needed; Ctrl-C ends without writing anything\n" in said
    assert "did you mean 'antwort'?\n" in said
    config: Any = compiled().nodes["dataset"].config
    assert (config.map.user, config.map.assistant) == ("frage", "antwort")


def test_the_end_of_the_input_ends_it(folder: Path, keys: Keys) -> None:
    """Ctrl-D is as good as Ctrl-C."""
    before = sorted(folder.rglob("*"))
    keys(EOFError())
    assert init("new", "--data", "docs") == 130
    assert sorted(folder.rglob("*")) == before


def test_what_reads_an_answer_may_be_asked_again(
    keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are no text in the terminal's encoding are no end of it."""
    keys(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "good")
    assert ask("What", None, str) == "good"
    assert "no text in this terminal's encoding" in capsys.readouterr().out
