"""How somebody at a terminal is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from init_command import compiled, init
from terminal import Terminal

from llmpipe.cli.prompts import ask


@pytest.mark.slow
def test_a_terminal_is_asked(folder: Path) -> None:
    """A bad answer is asked again with the reason, an empty one is the default, a number chooses."""
    with Terminal("init") as terminal:
        terminal.answer("Your data [.]: ", "doks\n")
        terminal.answer("did you mean 'docs'?\nYour data [.]: ", "docs\n")
        terminal.answer("Which [answer]: ", "3\n")
        terminal.answer("'3' is not one of answer, teach\nWhich [answer]: ", "teach\n")
        terminal.answer("--answer COLUMN\nWhich [answer]: ", "\n")
        assert terminal.ends() == 0
        assert "written: spec.yaml" in terminal.seen
    assert [node.kind for node in compiled().nodes.values()][-1] == "rag"


@pytest.mark.slow
def test_whoever_has_had_enough_leaves_no_trace(folder: Path) -> None:
    """Ctrl-C ends in 130, with nothing written and no traceback."""
    before = sorted(folder.rglob("*"))
    with Terminal("init", "new", "--data", "docs") as terminal:
        assert terminal.leave("Which [answer]: ", b"\x03") == 130
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
        monkeypatch.setattr("llmpipe.cli.prompts.at_terminal", lambda: True)
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
    """Bytes that are not text in the terminal's encoding do not end the input."""
    keys(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "good")
    assert ask("What", None, str) == "good"
    assert "not valid text in this terminal's encoding" in capsys.readouterr().out
