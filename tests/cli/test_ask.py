"""``llmpipe ask`` as typed: documents to a cited answer, by an endpoint that embeds and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai_endpoint import Endpoint
from terminal import Terminal
from town import INDEXED, write_texts
from workspace import Workspace

pytestmark = pytest.mark.heavy

SPEC = (
    INDEXED
    + """\
  answers:
    kind: rag
    index: index
    generator: {{engine: openai, model: m, base_url: "{url}", api_key: "${{secret:TOWN_KEY}}"}}
    threshold: -1.0
    questions: ["When does the kiosk open?"]
  plain: {{kind: command, run: "echo > ${{outputs.o}}", outputs: {{o: o.txt}}}}
"""
)
WHEN = "When does the kiosk open?"
ASK = ("ask", "spec.yaml")

FOUNTAIN = "The fountain \x9b31mwas built\x9b in 1900."
"""What would color a terminal."""


POOL = [
    {"title": "Swimming in summer, " * 5, "text": "Swimmers swim six summer evenings."},
    {"text": "Jazz quartets jam by the jetty."},
]
"""Rows, of which one has a title."""


class Town(Workspace):
    """A workspace with an endpoint, whose key is in the environment of every command."""

    def __init__(self, folder: Path, endpoint: Endpoint) -> None:
        super().__init__(folder)
        self.endpoint = endpoint
        self.write(SPEC.format(url=endpoint.url))
        write_texts(folder)
        (folder / "docs" / "fountain.md").write_text(FOUNTAIN, "utf-8")
        rows = "".join(json.dumps(row) + "\n" for row in POOL)
        (folder / "docs" / "pool.jsonl").write_text(rows, "utf-8")

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        return super().start(*arguments, **{"TOWN_KEY": "a-secret-key", **env})

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Ask and make sure that the question was answered."""
        found = self.call("ask", "spec.yaml", *arguments)
        assert found.returncode == 0, found.stderr
        return found


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A town whose stages are up to date."""
    with Endpoint() as endpoint:
        endpoint.reply = lambda body: ("The kiosk opens at nine in the morning [1].", "stop")
        town = Town(tmp_path_factory.mktemp("town"), endpoint)
        early = town.call("ask", "spec.yaml", WHEN)
        assert early.returncode == 1
        assert "llmpipe run spec.yaml --only answers" in early.stderr
        town.run()
        yield town


def test_the_answer_stands_above_its_citations(town: Town) -> None:
    """Text, then number, document, place and quote."""
    found = town.ask(WHEN)
    lines = found.stdout.splitlines()
    assert lines[0] == "The kiosk opens at nine in the morning [1]."
    assert lines[2].startswith("[1] docs/kiosk.md, ")
    assert lines[2].endswith("characters 0–39")
    assert lines[3] == "    The kiosk opens at nine in the morning."
    assert town.endpoint.headers[-1]["authorization"] == "Bearer a-secret-key"


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (1, f"docs/pool.jsonl#1, {', '.join(['Swimming in summer'] * 4)},…, characters 0–34"),
        (2, "docs/pool.jsonl#2, characters 0–31"),
    ],
)
def test_a_row_is_told_by_its_title(town: Town, row: int, place: str) -> None:
    """In short, beside its place; one without a title by its place alone."""
    text = POOL[row - 1]["text"]
    town.endpoint.reply, before = (lambda body: (f"{text} [1]", "stop")), town.endpoint.reply
    try:
        lines = town.ask(text).stdout.splitlines()
    finally:
        town.endpoint.reply = before
    assert lines[2:] == [f"[1] {place}", f"    {text}"]


def test_the_answer_as_data(town: Town) -> None:
    """One object on standard output, from a question on standard input, with so many passages."""
    found = subprocess.run(
        [sys.executable, "-m", "llmpipe", "ask", "spec.yaml", "-", "--json", "-k", "2"],
        cwd=town.folder,
        env={**os.environ, "TOWN_KEY": "a-secret-key"},
        input=f"{WHEN}\n",
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(found.stdout)
    assert answer["question"] == WHEN
    assert answer["citations"][0]["quote"] == "The kiosk opens at nine in the morning."
    assert len(answer["hits"]) == 2
    assert not answer["abstained"]
    assert answer["timings"]["generate"] > 0


def test_broken_bytes_are_asked_as_far_as_they_can_be_read(town: Town) -> None:
    """From standard input and as an argument; the model is asked in valid text."""
    broken = b"When does the kiosk \xff open?"
    for argument, given in ((b"-", broken), (broken, b"")):
        found = subprocess.run(
            [sys.executable, "-m", "llmpipe", "ask", "spec.yaml", argument, "--json"],
            cwd=town.folder,
            env={**os.environ, "TOWN_KEY": "a-secret-key"},
            input=given,
            capture_output=True,
            check=False,
        )
        assert found.returncode == 0, found.stderr.decode()
        question = json.loads(found.stdout)["question"]
        assert question.encode().startswith(b"When does the kiosk ")
        assert town.endpoint.received[-1]["messages"][-1]["content"].endswith(question)


def test_nothing_that_is_printed_steers_the_terminal(town: Town) -> None:
    """Neither the answer nor what it quotes; as data they are whole, and JSON escapes them."""
    says = f"{FOUNTAIN[:-1]} [1].\n\tAlways.\x1b[2J"
    town.endpoint.reply, before = (lambda body: (says, "stop"), town.endpoint.reply)
    try:
        lines = town.ask("When was the fountain built?").stdout.splitlines()
        data = json.loads(town.ask("When was the fountain built?", "--json").stdout)
    finally:
        town.endpoint.reply = before
    shown = "The fountain �31mwas built� in 1900"
    assert lines[:2] == [f"{shown} [1].", "\tAlways.�[2J"]
    assert f"    {shown}." in lines
    assert data["text"] == says
    assert data["citations"][0]["quote"] == FOUNTAIN


def test_an_answer_without_a_source_is_told(town: Town) -> None:
    """It is printed, and that nothing that was found says so."""
    town.endpoint.reply, before = lambda body: ("Chess is a game.", "stop"), town.endpoint.reply
    try:
        lines = town.ask("When does the kiosk open?").stdout.splitlines()
    finally:
        town.endpoint.reply = before
    assert lines[0] == "Chess is a game."
    assert lines[-1].startswith("No source was found for this answer. Searched: docs/kiosk.md")


def test_a_sentence_without_a_source_is_named(town: Town) -> None:
    """An invented sentence beside cited ones looked as if it were cited, too."""
    said = "The kiosk opens at nine in the morning [1]. Its keeper is called Otto Brandt."
    town.endpoint.reply, before = lambda body: (said, "stop"), town.endpoint.reply
    try:
        found = town.ask(WHEN).stdout
    finally:
        town.endpoint.reply = before
    assert "\nNo source was found for: Its keeper is called Otto Brandt.\n" in found


def test_no_answer_is_an_answer(town: Town) -> None:
    """The command has done what it was asked."""
    town.endpoint.reply, before = (
        lambda body: ("The sources do not say.", "stop"),
        town.endpoint.reply,
    )
    try:
        assert town.ask("Who likes chess?").stdout == "The sources do not say.\n"
    finally:
        town.endpoint.reply = before


def test_one_question_after_the_other(town: Town) -> None:
    """Everything is loaded once; what was said before goes to the model with the next question."""
    asked = len(town.endpoint.received)
    with Terminal(*ASK, folder=town.folder, TOWN_KEY="a-secret-key") as terminal:
        terminal.answer("> ", f"{WHEN}\n")
        terminal.answer("characters 0–39", "\n")
        terminal.answer("> ", "And the fountain?\n")
        assert terminal.leave("> ", b"\x04") == 0
        assert "Traceback" not in terminal.seen
    answered = [body for body in town.endpoint.received[asked:] if "messages" in body]
    assert [message["role"] for message in answered[-1]["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert answered[-1]["messages"][1]["content"] == WHEN


def test_an_answer_is_stopped_and_the_next_question_asked(town: Town) -> None:
    """Ctrl-C ends the answer that is being written, and the request for it, and nothing else."""
    town.endpoint.pause, town.endpoint.hung_up = 2.0, threading.Event()
    try:
        with Terminal(*ASK, folder=town.folder, TOWN_KEY="a-secret-key") as terminal:
            terminal.answer("> ", f"{WHEN}\n")
            terminal.answer("The", "\x03")
            assert terminal.leave("(stopped)\n\n> ", b"\x04") == 0
            assert "Traceback" not in terminal.seen
        assert town.endpoint.hung_up.wait(30)
    finally:
        town.endpoint.pause = 0.0


def test_a_failure_is_not_the_end(town: Town) -> None:
    """It is told, and the next question may be answered."""
    refusal = 400, {"error": {"message": "not today"}}, {}
    before = town.endpoint.before
    town.endpoint.before = lambda body, number: refusal if "messages" in body else None
    try:
        with Terminal(*ASK, folder=town.folder, TOWN_KEY="a-secret-key") as terminal:
            terminal.answer("> ", f"{WHEN}\n")
            terminal.answer("not today", "")
            town.endpoint.before = before
            terminal.answer("> ", f"{WHEN}\n")
            terminal.answer("characters 0–39", "")
            assert terminal.leave("> ", b"\x04") == 0
    finally:
        town.endpoint.before = before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([" "], "the question is empty"),
        ([], "without a terminal, a question is needed"),
        (["--json"], "--json takes a question"),
        ([WHEN, "-k", "0"], 'argument -k: must be a whole number of at least 1, not "0"'),
        (
            [WHEN, "--stage", "plain"],
            "plain is a stage of kind command, which cannot answer questions",
        ),
        ([WHEN, "--stage", "answer"], "did you mean 'answers'?"),
    ],
)
def test_mistakes_are_told(town: Town, arguments: list[str], message: str) -> None:
    """Before anything is opened."""
    found = town.call("ask", "spec.yaml", *arguments)
    assert found.returncode == 2
    assert message in found.stderr


def test_what_changed_has_to_run_first(town: Town) -> None:
    """Another question in the spec is another check."""
    found = town.call("ask", "spec.yaml", WHEN, "--set", "stages.answers.k=3")
    assert found.returncode == 1
    assert "answers is not up to date in the store" in found.stderr
