"""Completion in shells: Tab is pressed in the real bash, zsh and fish."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmpipe.cli.completion import SCRIPTS, command_parser, offers
from llmpipe.cli.main import COMMANDS, main

SPEC = """\
version: 1
name: sample
params: {word: one, size: 3}
profiles: {gpu: {params: {size: 5}}, tiny: {}}
stages:
  first: {kind: command, run: "echo ${params.word} > ${outputs.o}", outputs: {o: o.txt}}
  second: {kind: command, run: "cat ${inputs.i} > ${outputs.o}", inputs: {i: first}, outputs: {o: o.txt}}
"""

TAB = """\
source <(llmpipe completion bash)
COMP_LINE=$1 COMP_POINT=${#1}
_llmpipe llmpipe
printf '%s\\n' "${COMPREPLY[@]}"
"""

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with a spec that we stand in."""
    (tmp_path / "spec.yaml").write_text(SPEC, "utf-8")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "data set").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", PATH)
    return tmp_path


def words(line: str) -> list[str]:
    """Return the words that are offered at the end of a line."""
    return [word for word, _ in offers(line)]


def in_bash(line: str) -> list[str]:
    """Return what bash would put in the place of the word at the end of a line."""
    found = subprocess.run(
        ["bash", "--norc", "-c", TAB, "bash", line], capture_output=True, text=True, check=True
    )
    assert found.stderr == ""
    return found.stdout.split("\n")[:-1]


def test_commands_are_offered() -> None:
    """All commands, each with what it does; only those that begin as typed; no more behind one."""
    assert offers("llmpipe ") == list(COMMANDS.items())
    assert words("llmpipe val") == ["validate"]
    assert words("/usr/bin/llmpipe pla") == ["plan"]
    assert words("llmpipe nonsense ") == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_of_every_command_is_offered(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a command's own help lists is what is offered: there is no second list."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = {word.strip("[],") for word in capsys.readouterr().out.split()}
    offered = words(f"llmpipe {command} --")
    assert "--help" in offered
    assert set(offered) == {word for word in told if word.startswith("--")} & set(
        command_parser(command)._option_string_actions
    )


@pytest.mark.parametrize("option", ["--only ", "--from ", "--force ", "--keep "])
@pytest.mark.parametrize("before", ["spec.yaml", "spec.yaml --set params.word=x -k", "./spec.yaml"])
def test_stages_of_the_spec_are_offered(folder: Path, option: str, before: str) -> None:
    """Behind an option that takes a stage stand the spec's, each with its kind."""
    assert offers(f"llmpipe run {before} {option}") == [("first", "command"), ("second", "command")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("plan spec.yaml ", ["first", "second"]),
        ("plan spec.yaml s", ["second"]),
        ("get spec.yaml f", ["first"]),
        ("push spec.yaml first ", ["first", "second"]),
        ("run --only=", ["--only=first", "--only=second"]),
        ("run --only ", ["first", "second"]),
        ("run other.yaml --only ", []),
        ("run spec.yaml --profile ", ["gpu", "tiny"]),
        ("run spec.yaml --profile gpu --profile t", ["tiny"]),
        ("run spec.yaml --set ", ["params.word=", "params.size="]),
        ("runs ", ["list", "show", "compare"]),
        ("runs show ", []),
        ("cache v", ["verify"]),
        ("schema mer", ["merge"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("run ", [":yaml"]),
        ("runs --spec ", [":yaml"]),
        ("get spec.yaml first ", [":files"]),
        ("compile spec.yaml first --out ", [":files"]),
        ("check ", [":yaml"]),
        ("run 'spec.yaml", [":yaml"]),
        ("run spec.yaml --jobs ", []),
        ("run spec.yaml --no-such-option fir", []),
    ],
)
def test_what_fits_is_offered(folder: Path, line: str, expected: list[str]) -> None:
    """Arguments by their place and kind; ``:yaml`` and ``:files`` ask the shell for files."""
    assert words(f"llmpipe {line}") == expected


def test_options_follow_when_no_argument_is_left(folder: Path) -> None:
    """Behind the last argument stand the options, explained."""
    assert ("--json", "print the plan as JSON") in offers("llmpipe plan spec.yaml first ")


@pytest.mark.slow
def test_runs_are_offered(folder: Path) -> None:
    """Earlier runs are offered by ``show`` and, each time again, by ``compare``."""
    runs = [subprocess.run(["llmpipe", "run", "spec.yaml", "-q"], check=True) for _ in range(2)]
    found = words("llmpipe runs show ")
    assert len(found) == len(runs)
    assert found == sorted(path.name for path in (folder / ".llmpipe/runs").iterdir())
    assert words(f"llmpipe runs compare {found[0]} {found[1]}") == [found[1]]
    assert words("llmpipe runs --spec spec.yaml compare ") == found


@pytest.mark.parametrize(
    "text", ["", "stages: [", "- a", "stages: 3", "stages: {a: 1, b: }", "\0", 'stages: {"a\\nb": {}}']
)  # fmt: skip
def test_a_broken_spec_is_no_noise(
    folder: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    """A spec that is being written offers what can be read of it, and never a message."""
    (folder / "spec.yaml").write_text(text, "utf-8")
    for line in ("run spec.yaml --only ", "run spec.yaml --profile ", "plan spec.yaml "):
        assert main(["completion", "bash", "--line", f"llmpipe {line}"]) == 0
    out, err = capfd.readouterr()
    assert set(out.split()) <= {"a", "b"}
    assert err == ""


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_answer_is_quick(folder: Path, command: str) -> None:
    """No answer imports what is slow to import."""
    code = (
        "import sys; from llmpipe.cli.completion import offers;"
        f"offers('llmpipe {command} spec.yaml '); offers('llmpipe {command} --');"
        "print([m for m in ('jsonschema', 'rich', 'numpy', 'torch', 'openai') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("llmpipe pl", ["plan"]),
        ("llmpipe run spec.yaml --only ", ["first", "second"]),
        ("llmpipe run spec.yaml --only=f", ["first"]),  # bash keeps what stands before the =
        ("llmpipe run spec.yaml --set params.s", ["params.size="]),
        ("llmpipe run s", ["spec.yaml"]),
        ("llmpipe run ", ["data set", "spec.yaml"]),
        ("llmpipe runs --spec=sp", ["spec.yaml"]),
        ("llmpipe get spec.yaml first ", ["data set", "notes.txt", "spec.yaml"]),
        ("llmpipe run spec.yaml --j", ["--jobs", "--json"]),
        ("llmpipe nonsense ", [""]),
    ],
)
def test_bash_is_told(folder: Path, line: str, expected: list[str]) -> None:
    """The script turns the answers into bash's."""
    assert sorted(in_bash(line)) == expected


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(llmpipe completion bash)"),
    "zsh": (
        ["zsh", "-f", "-i"],
        "autoload -U compinit; compinit -u -D; source <(llmpipe completion zsh)",
    ),
    "fish": (["fish", "--no-config", "-i"], "llmpipe completion fish | source"),
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_at_a_terminal(folder: Path, shell: str) -> None:
    """Tab completes command, file, option and stage; what comes of it runs."""
    assert shutil.which(shell), f"{shell} is missing: `make programs` installs it"
    start, setup = SHELLS[shell]
    env = {**os.environ, "TERM": "xterm", "HOME": str(folder)}
    process, terminal = pty.fork()
    if process == 0:
        os.execvpe(start[0], start, env)
    try:
        _type(terminal, f"{setup}; echo rea''dy\r", until="ready")
        _type(terminal, "llmpipe pla\tspe\tsec\t--ch\t\r", until="second (command): run")
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)


def _type(terminal: int, keys: str, *, until: str, seconds: float = 60.0) -> None:
    """Press keys, and read until something is to be seen."""
    os.write(terminal, keys.encode())
    seen, deadline = "", time.monotonic() + seconds
    while until not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{until!r} is not in {seen!r}"
        seen += os.read(terminal, 1 << 16).decode("utf-8", "replace")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shell's script is sound by that shell's own reading."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "llmpipe" in script
    read = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True)
    assert (read.returncode, read.stderr) == (0, "")


def test_a_home_of_nobody_has_nothing_to_offer(folder: Path) -> None:
    """An impossible path does not break what is being typed."""
    assert words("llmpipe run ~nouser/x --only ") == []
