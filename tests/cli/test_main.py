"""The command line as a user meets it: help, mistakes, exit codes, and nothing heavy imported."""

from __future__ import annotations

import json
import os
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


def call(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "llmpipe", *arguments],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
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


@pytest.mark.slow
def test_validate_gives_problems_as_data(folder: Path) -> None:
    """--json prints every problem with its place and hint, for editors and scripts, and exits with 2."""
    good = call(folder, "validate", "spec.yaml", "--json")
    assert json.loads(good.stdout) == {
        "spec": "spec.yaml", "sound": True, "problems": [], "more": 0, "warnings": [],
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
    """A misspelled command ends in 2 with the nearest one."""
    assert main(["plna"]) == 2
    assert "did you mean 'plan'?" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["plan", "spec.yaml"]])
def test_nothing_heavy_is_imported(folder: Path, arguments: list[str]) -> None:
    """Help, version and a plan import neither torch and its kin nor the validator of a known spec."""
    call(folder, "run", "spec.yaml")
    code = (
        f"import sys; from llmpipe.cli.main import main; main({arguments!r});"
        "print([m for m in ('torch', 'transformers', 'axolotl', 'faiss', 'jsonschema', 'rich',"
        " 'numpy', 'openai', 'datasets', 'jinja2') if m in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True
    )
    assert result.stderr.splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPEC.replace("to:", "too:"), "unknown key 'too'"),
        (SPEC.replace("to: messages", "to: 3"), "must be one of alpaca"),
        (SPEC.replace("./rows.jsonl", "rowz"), "there is no stage 'rowz'"),
        (SPEC.replace("./rows.jsonl", "dataset"), "in a circle"),
        (SPEC.replace("./rows.jsonl", "./gone.jsonl"), "no such file or folder: ./gone.jsonl"),
        (SPEC + "  dataset: {kind: format, data: ./rows.jsonl, to: messages}\n", "appears twice"),
        (SPEC.replace("./rows.jsonl", "~nouser/x"), "no such file or folder: ~nouser/x"),
        (SPEC.replace("./rows.jsonl", '"./a\\0b"'), "is no stage, no path and no hub id"),
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_schemas_are_printed_and_checked(folder: Path) -> None:
    """``schema`` prints JSON; ``--check`` tells a stale folder from a fresh one."""
    assert json.loads(call(folder, "schema").stdout)["title"] == "llmpipe spec"
    assert "to" in json.loads(call(folder, "schema", "format").stdout)["properties"]
    assert "did you mean 'format'?" in call(folder, "schema", "formt").stderr
    assert call(folder, "schema", "--write", "s").returncode == 0
    assert call(folder, "schema", "--check", "s").returncode == 0
    (folder / "s" / "spec.schema.json").write_text("{}")
    assert call(folder, "schema", "--check", "s").returncode == 1
    (folder / "s" / "spec.schema.json").write_bytes(b"\xff")
    stale = call(folder, "schema", "--check", "s")
    assert (stale.returncode, stale.stderr) == (1, "s/spec.schema.json is stale\n")
    assert call(folder, "schema", "--write", "s", "--docs", "page.md").returncode == 0
    assert call(folder, "schema", "--check", "s", "--docs", "page.md").returncode == 0
    (folder / "page.md").write_bytes(b"\xff")
    stale = call(folder, "schema", "--check", "s", "--docs", "page.md")
    assert (stale.returncode, stale.stderr) == (1, "page.md is stale\n")


@pytest.mark.slow
@pytest.mark.parametrize("option", ["--write", "--check", "--docs"])
def test_files_are_made_for_all_kinds(folder: Path, option: str) -> None:
    """A kind beside them would do nothing: it is refused."""
    told = call(folder, "schema", option, "s", "format")
    assert told.returncode == 2
    assert "are for all kinds, not for 'format'" in told.stderr
    assert not (folder / "s").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoding",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_any_character_can_be_printed(folder: Path, encoding: dict[str, str]) -> None:
    """One that the terminal's encoding lacks is shown as its number."""
    (folder / "spec.yaml").write_text(
        SPEC.replace("format,", "format, description: 字 é,"), "utf-8"
    )
    for arguments in (["run", "spec.yaml"], ["runs", "show"], ["plan", "spec.yaml", "dataset"]):
        told = call(folder, *arguments, **encoding)
        assert told.returncode == 0, told.stderr
        assert "Traceback" not in told.stderr
    assert "\\u2713 dataset" in call(folder, "runs", "show", **encoding).stdout


@pytest.mark.slow
def test_what_cannot_be_printed_is_one_clear_message(folder: Path) -> None:
    """A full disk below standard output ends in 1, not in a traceback."""
    command = [sys.executable, "-m", "llmpipe", "plan", "spec.yaml"]
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True)
        assert (told.returncode, told.stderr) == (1, "llmpipe plan: No space left on device\n")
        told = subprocess.run(command, cwd=folder, stdout=full, stderr=full)
    assert told.returncode == 1


@pytest.mark.slow
def test_nobody_reads_what_is_printed(folder: Path) -> None:
    """A plan whose reader is gone ends as a program does that SIGPIPE stops, without a word."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "llmpipe", "plan", "spec.yaml"]
    told = subprocess.run(command, cwd=folder, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (told.returncode, told.stderr) == (141, "")


@pytest.mark.slow
def test_a_closed_standard_output_is_no_failure(folder: Path) -> None:
    """A reader that closes it wants to read nothing."""
    script = f"exec '{sys.executable}' -m llmpipe plan spec.yaml >&-"
    told = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.slow
def test_a_home_of_nobody_holds_no_store(folder: Path) -> None:
    """LLMPIPE_HOME is refused then, and nothing is begun under its name."""
    told = call(folder, "run", "spec.yaml", LLMPIPE_HOME="~nouser/x")
    assert told.returncode == 2
    assert "LLMPIPE_HOME=~nouser/x: there is no such user" in told.stderr
    assert not (folder / "~nouser").exists()


@pytest.mark.slow
def test_what_is_compiled_needs_a_folder(folder: Path) -> None:
    """A file in its place is refused."""
    text = (
        SPEC
        + "  sft: {kind: train, base_model: org/name, data: dataset, axolotl: {adapter: lora}}\n"
    )
    (folder / "spec.yaml").write_text(text, "utf-8")
    told = call(folder, "compile", "spec.yaml", "sft", "--out", "rows.jsonl")
    assert told.returncode == 2
    assert told.stderr.startswith("rows.jsonl is a file\n")


@pytest.mark.slow
def test_a_spec_of_nothing_but_mistakes_is_told_in_a_page(tmp_path: Path) -> None:
    """Twenty thousand unknown keys were seven megabytes of messages; as JSON, too."""
    keys = "".join(f"    k{i}: 1\n" for i in range(2000))
    (tmp_path / "spec.yaml").write_text(
        f"version: 1\nname: many\nstages:\n  one:\n    kind: command\n    run: x\n    outputs: {{o: o}}\n{keys}"
    )
    told = call(tmp_path, "validate", "spec.yaml")
    assert (told.returncode, told.stdout) == (2, "")
    assert "and 1,900 more problems" in told.stderr.splitlines()[-1]
    assert len(told.stderr) < 30_000
    answer = json.loads(call(tmp_path, "validate", "spec.yaml", "--json").stdout)
    assert (len(answer["problems"]), answer["more"], answer["sound"]) == (100, 1900, False)
