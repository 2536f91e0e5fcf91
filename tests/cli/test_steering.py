"""Nothing that a terminal would obey reaches it from names, specs, logs or what others report."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from terminal import Terminal
from workspace import Workspace

from llmpipe.runner.console import PlainView, QuietView
from llmpipe.runner.live import LiveView
from llmpipe.terminal import Guard, guarded, json_safe, uncolored

EVIL = "a\x1b[2Jb\x9bc\x07d\re\u202ef"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SAFE = STEERING.sub("\ufffd", EVIL)

SPEC = """\
version: 1
name: steering
stages:
  one: {kind: command, run: "echo > ${outputs.o}", outputs: {o: o.txt}}
"""


def said(workspace: Workspace, *arguments: str, **env: str) -> str:
    """Return what a command says, on both streams; nothing in it steers."""
    found = workspace.call(*arguments, **env)
    told = found.stdout + found.stderr
    assert not STEERING.search(told), repr(told)
    assert "Traceback" not in told
    return told


def quoted(text: str) -> str:
    """Write a text as YAML may hold it."""
    return json.dumps(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("one:", f"{quoted(EVIL)}:"),
        ("name: steering", f"name: {quoted(EVIL)}"),
        ("kind: command", f"kind: {quoted(EVIL)}"),
        ("outputs:", f"{quoted(EVIL)}: 1, outputs:"),
        ("outputs:", f"inputs: {{i: {quoted('./' + EVIL)}}}, outputs:"),
        ("outputs:", f"inputs: {{i: {quoted(EVIL)}}}, outputs:"),
        ("{o: o.txt}", f"{{o: {quoted(EVIL + '/x')}}}"),
        ("version: 1", f"version: 1\nextends: {quoted(EVIL)}"),
        ("version: 1", f"version: 1\nprofiles: {{{quoted(EVIL)}: 1}}"),
        ("echo >", "${" + EVIL.replace("\x9b", "").replace("\r", "") + "} echo >"),
        ("version: 1", "version: 1 # \x1b[2J \x9b and no value: here: at all"),
        ("one:", "- \u202e:"),
    ],
)
def test_what_a_spec_holds(workspace: Workspace, old: str, new: str) -> None:
    """Keys, ids, values and excerpts, also of what is not YAML; as data it stays what it is."""
    workspace.write(SPEC.replace(old, new))
    for command in ("validate", "plan", "run"):
        assert "spec.yaml" in said(workspace, command, "spec.yaml")
    answer = json.loads(said(workspace, "validate", "spec.yaml", "--json"))
    assert not answer["sound"]


def test_data_stays_whole(workspace: Workspace) -> None:
    """JSON writes as escapes what a terminal would obey."""
    workspace.write(SPEC.replace("kind: command", f"kind: {quoted(EVIL)}"))
    answer = json.loads(said(workspace, "validate", "spec.yaml", "--json"))
    assert repr(EVIL) in answer["problems"][0]["message"]
    assert json.loads(json_safe(json.dumps(EVIL, ensure_ascii=False))) == EVIL


@pytest.mark.parametrize(
    "arguments",
    [
        [EVIL],
        ["run", EVIL],
        ["run", "spec.yaml", f"--{EVIL}"],
        ["run", "spec.yaml", "--only", EVIL],
        ["plan", "spec.yaml", EVIL],
        ["plan", "spec.yaml", "--set", EVIL],
        ["plan", "spec.yaml", "--profile", EVIL],
        ["check", EVIL],
        ["get", "spec.yaml", EVIL, "x"],
        ["runs", "show", EVIL],
        ["init", EVIL, "--yes"],
        ["cache", EVIL],
        ["gc", EVIL],
    ],
)
def test_what_the_command_line_names(workspace: Workspace, arguments: list[str]) -> None:
    """Whatever an argument is, what is said of it is harmless."""
    workspace.write(SPEC)
    said(workspace, *arguments)


def test_names_of_files(workspace: Workspace) -> None:
    """Folders and files of such names are named in errors, results and plans."""
    folder = workspace.folder / EVIL.replace("/", "")
    folder.mkdir()
    inside = Workspace(folder)
    inside.write(SPEC)
    assert "1 done" in said(inside, "run", str(inside.spec))
    assert "valid, 1 stage" in said(inside, "validate", str(inside.spec))
    assert folder.name.partition("\x1b")[0] in said(inside, "get", "spec.yaml", "one", EVIL)
    said(inside, "runs", "show")
    said(inside, "report")


def test_what_a_stage_says(workspace: Workspace) -> None:
    """The end of its log and its error; colors alone leave no trace, the log file keeps all."""
    (workspace.folder / "words").write_text("\x1b[31mred\x1b[0m \x1b]0;title\x07 end\n")
    workspace.write(SPEC.replace("echo >", "cat words; false >"))
    for option in ("--plain", "--quiet"):
        told = said(workspace, "run", "spec.yaml", option)
        assert "  | red \ufffd]0;title\ufffd end\n" in told
    (log, *_) = workspace.folder.glob(".llmpipe/runs/*/one.log")
    assert b"\x1b[31mred" in log.read_bytes()
    assert "red \ufffd]0;title\ufffd end" in said(workspace, "runs", "show")


def test_what_another_machine_reports(workspace: Workspace) -> None:
    """The summary of a record that came from a remote store."""
    workspace.write(SPEC)
    workspace.run()
    (record,) = workspace.folder.glob(".llmpipe/store/keys/*.json")
    record.write_text(json.dumps({**json.loads(record.read_bytes()), "summary": EVIL}))
    assert SAFE.partition("\ufffd")[0] in said(workspace, "run", "spec.yaml", "--only", "one")


EVENTS: list[dict[str, Any]] = [
    {"event": "stage-started", "stage": EVIL, "kind": EVIL, "attempt": 0, "causes": [
        {"cause": "file", "path": EVIL}, {"cause": "config", "field": EVIL, "old": EVIL, "new": [EVIL]},
    ]},
    {"event": "log", "stage": EVIL, "line": EVIL},
    {"event": "progress", "stage": EVIL, "done": 1, "total": 2, "note": EVIL},
    {"event": "warning", "stage": EVIL, "message": EVIL},
    {"event": "fetched", "stage": EVIL, "remote": EVIL},
    {"event": "unreachable", "stage": EVIL, "message": EVIL},
    {"event": "stage-retry", "stage": EVIL, "attempt": 1, "retries": 1, "pause": 1, "error": {"message": EVIL}},
    {"event": "stage-ended", "stage": EVIL, "status": "done", "seconds": 1, "error": None, "summary": EVIL},
    {"event": "stage-ended", "stage": EVIL, "status": "failed", "seconds": 1, "summary": "", "error": {
        "message": EVIL, "hint": EVIL, "tail": [EVIL], "log": EVIL,
    }},
]  # fmt: skip


@pytest.mark.parametrize("view", [PlainView, QuietView])
def test_views_of_lines(view: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event, in every text of it."""
    monkeypatch.setattr("llmpipe.runner.console.PLAIN_INTERVAL", 0)
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", Guard(written))
    shown = view()
    for event in EVENTS:
        shown(event)
    assert SAFE in written.getvalue()
    assert not STEERING.search(written.getvalue())


def test_the_live_view() -> None:
    """What rich draws are its own escapes; none is from an event, nor is markup."""
    from rich.console import Console

    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=200, color_system=None)
    view = LiveView(console)
    stage = f"[bold]{EVIL}"
    for event in EVENTS:
        view({**event, "stage": stage})
        view._progress.refresh()
    view.close()
    drawn = written.getvalue()
    assert f"[bold]{SAFE}" in drawn
    assert not re.search("\x1b\\[2J|[\x07\x9b\u202e]", drawn)


def test_a_terminal_shows_a_spec_of_such_a_name(workspace: Workspace) -> None:
    """The whole way, with the bar that is redrawn."""
    (workspace.folder / "words").write_text("\x1b[2Jstep\n")
    workspace.write(SPEC.replace("echo >", "cat words; sleep 0.5; echo >"))
    with Terminal("run", "spec.yaml", folder=workspace.folder, COLUMNS="140") as terminal:
        assert terminal.ends() == 0
    assert "\x1b[2J" not in terminal.seen
    assert "\ufffd[2Jstep" in terminal.seen


def test_the_question_of_an_agent_is_shown_harmless(tmp_path: Path) -> None:
    """What is suggested as an answer is part of a prompt, which Python writes by itself."""
    program = (
        "import builtins; from llmpipe.cli.prompts import ask\n"
        "builtins.input = lambda prompt: print(ascii(prompt)) or ''\n"
        f"ask('Which file', {EVIL!r}, str)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True
    )
    assert found.stdout == f"{f'Which file [{SAFE}]: '!a}\n"


@pytest.mark.parametrize("text", ["plain", "tab\tand\nline", "Zürich 東京 👩‍💻 می‌خواهم", ""])
def test_honest_text_stays(text: str) -> None:
    """Joiners of emoji and of Persian are not control characters."""
    assert guarded(text) == text


def test_colors_are_no_words() -> None:
    """Those of a child's log go; a sequence that does more stays in sight."""
    assert uncolored("\x1b[1;31mno\x1b[0m \x1b[38:2::1:2:3mway\x1b[m") == "no way"
    assert uncolored("\x1b[2J") == "\x1b[2J"


def test_a_guard_does_not_close_what_it_guards() -> None:
    """A handler of logging that took it for its own file closes it, and messages go on."""
    stream = io.StringIO()
    guard = Guard(stream)
    guard.close()
    guard.write("still here")
    assert stream.getvalue() == "still here"
