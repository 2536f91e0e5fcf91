"""A subprocess that answers: each question gets its own answer, whatever happens to others."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmpipe.backends.axolotl.answering import AnsweringChild, NoAnswerError

ECHO = """\
import time
from llmpipe.backends.axolotl.answering import answer_in_forks

def answer(asked):
    time.sleep(asked["seconds"])
    return asked["name"]

raise SystemExit(answer_in_forks(answer))
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AnsweringChild:
    """One that returns a question's name after a while."""
    (tmp_path / "echo_child.py").write_text(ECHO)
    monkeypatch.syspath_prepend(str(tmp_path))
    root = Path(__file__).parent.parent.parent.parent
    return AnsweringChild("echo_child", {"PYTHONPATH": f"{tmp_path}:{root}"})


def asked(name: str, seconds: float = 0) -> str:
    """Return a question."""
    return f'{{"name": "{name}", "seconds": {seconds}}}'


@pytest.mark.slow
def test_an_interrupted_question_does_not_answer_the_next(child: AnsweringChild) -> None:
    """Ctrl-C while it waits: in a notebook, the process goes on and asks again."""
    assert child.ask(asked("warm")) == "warm"
    handler = signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            child.ask(asked("first", 2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    assert child.ask(asked("second")) == "second"


def test_threads_get_their_own_answers(child: AnsweringChild) -> None:
    """Though one process answers all."""
    names = [f"n{number}" for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda name: child.ask(asked(name, 0.02)), names)) == names


def test_an_answer_that_fails_is_told(child: AnsweringChild) -> None:
    """With its error output; the next question is answered."""
    with pytest.raises(NoAnswerError, match="KeyError: 'seconds'"):
        child.ask('{"name": "x"}')
    assert child.ask(asked("next")) == "next"
