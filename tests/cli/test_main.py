"""The command line as a user meets it: help, mistakes, exit codes, and nothing heavy imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import llmpipe
from llmpipe.cli.main import COMMANDS, main

SPEC = """\
version: 1
name: sample
stages:
  dataset: {kind: format, data: ./rows.jsonl, to: messages}
"""


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "llmpipe", *arguments], cwd=folder, capture_output=True, text=True
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a sound spec and one row of data."""
    (tmp_path / "spec.yaml").write_text(SPEC, "utf-8")
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    return tmp_path


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Help lists every command; the version is the package's."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"llmpipe {llmpipe.__version__}\n"
    assert main([]) == 2


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command has a help text of its own."""
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    assert f"llmpipe {command}" in capsys.readouterr().out


def test_validate_gives_problems_as_data(folder: Path) -> None:
    """--json prints every problem with its place and hint, for editors and scripts, and exits with 2."""
    good = call(folder, "validate", "spec.yaml", "--json")
    assert json.loads(good.stdout) == {
        "spec": "spec.yaml", "sound": True, "problems": [], "warnings": [],
    }  # fmt: skip
    (folder / "spec.yaml").write_text(SPEC.replace("to: messages", "too: messages"), "utf-8")
    bad = call(folder, "validate", "spec.yaml", "--json")
    assert bad.returncode == 2
    answer = json.loads(bad.stdout)
    assert not answer["sound"]
    (problem,) = (p for p in answer["problems"] if "too" in p["message"])
    assert (problem["file"], problem["line"], problem["column"]) == ("spec.yaml", 4, 47)
    assert problem["hint"] == "did you mean 'to'?"


def test_an_unknown_command_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command ends in 2 with the nearest one."""
    assert main(["plna"]) == 2
    assert "did you mean 'plan'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["plan", "spec.yaml"]])
def test_nothing_heavy_is_imported(folder: Path, arguments: list[str]) -> None:
    """Help, version and a plan import neither torch and its kin nor the validator of a known spec."""
    call(folder, "run", "spec.yaml")
    code = (
        f"import sys; from llmpipe.cli.main import main; main({arguments!r});"
        "print([m for m in ('torch', 'transformers', 'axolotl', 'faiss', 'jsonschema', 'rich',"
        " 'numpy', 'openai', 'datasets') if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert result.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC.replace("to:", "too:"), "unknown key 'too'"),
        (SPEC.replace("to: messages", "to: 3"), "is needed, not 3"),
        (SPEC.replace("./rows.jsonl", "rowz"), "there is no stage 'rowz'"),
        (SPEC.replace("./rows.jsonl", "dataset"), "in a circle"),
        (SPEC.replace("./rows.jsonl", "./gone.jsonl"), "no such file or folder: ./gone.jsonl"),
        (SPEC + "  dataset: {kind: format, data: ./rows.jsonl, to: messages}\n", "stands twice"),
        (SPEC.replace("  dataset", "\tdataset"), "not valid YAML"),
        ("", "the file is empty"),
        ("- a\n", "not a list"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "plan", "run"])
def test_a_wrong_spec_is_one_clear_message(
    folder: Path, command: str, text: str, message: str
) -> None:
    """Exit code 2, the place, the message; no traceback, nothing run, no store begun."""
    (folder / "spec.yaml").write_text(text, "utf-8")
    result = call(folder, command, "spec.yaml")
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.startswith("spec.yaml:")
    assert "Traceback" not in result.stderr
    assert not (folder / ".llmpipe" / "store").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{not json}\n", "rows.jsonl:1"),
        (b'{"a": 1}\n', "rows.jsonl:1"),
        (b"", "rows.jsonl"),
        (b'{"messages": "\xff"}\n', "UTF-8"),
    ],
)
def test_wrong_data_is_one_clear_message(folder: Path, content: bytes, message: str) -> None:
    """A data file that cannot be used fails its stage with file and line; exit code 1."""
    (folder / "rows.jsonl").write_bytes(content)
    result = call(folder, "run", "spec.yaml")
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_the_schemas_are_printed_and_checked(folder: Path) -> None:
    """``schema`` prints JSON; ``--check`` tells a stale folder from a fresh one."""
    assert json.loads(call(folder, "schema").stdout)["title"] == "llmpipe spec"
    assert "to" in json.loads(call(folder, "schema", "format").stdout)["properties"]
    assert "did you mean 'format'?" in call(folder, "schema", "formt").stderr
    assert call(folder, "schema", "--write", "s").returncode == 0
    assert call(folder, "schema", "--check", "s").returncode == 0
    (folder / "s" / "spec.schema.json").write_text("{}")
    assert call(folder, "schema", "--check", "s").returncode == 1
