"""Stage kinds of other people's packages, installed by pip as anybody would install them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from offered import CLASS, WHO, llmpipe, offer, path_with, refused

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parent / "plugin"

SPEC = """\
version: 1
name: counted
stages:
  words: {kind: word_count, data: ./rows.jsonl, column: text, top: 2}
  show: {kind: command, run: "cat ${inputs.c} > ${outputs.o}", inputs: {c: words}, outputs: {o: o.json}}
"""


@pytest.fixture(scope="session")
def plugins(build_once: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the sample package and nothing else."""

    def install(folder: Path) -> None:
        source = tmp_path_factory.mktemp("source") / "plugin"  # a build leaves things beside it
        shutil.copytree(PACKAGE, source)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        command += ["--no-build-isolation", "--target", str(folder), str(source)]
        subprocess.run(command, check=True)

    return build_once("plugins", install)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a spec that uses the sample kind."""
    (tmp_path / "spec.yaml").write_text(SPEC)
    rows = [{"text": "a rose is a rose"}, {"text": "A word"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_kind_of_a_package_runs_like_our_own(folder: Path, plugins: Path) -> None:
    """It runs in a worker, is cached, reruns when its fields change, and feeds other stages."""
    result = llmpipe(folder, plugins, "run", "spec.yaml", "--json")
    assert result.returncode == 0, result.stderr
    stages = json.loads(result.stdout)["stages"]
    assert stages["words"]["metrics"] == {"words": 7, "different": 4}
    shown = json.loads(Path(stages["show"]["outputs"]["o"]).read_text())
    assert shown["counts"] == {"a": 3, "rose": 2}
    again = json.loads(llmpipe(folder, plugins, "run", "spec.yaml", "--json").stdout)["stages"]
    assert {stage["status"] for stage in again.values()} == {"cached"}
    (folder / "spec.yaml").write_text(SPEC.replace("top: 2", "top: 1, case: keep"))
    told = llmpipe(folder, plugins, "plan", "spec.yaml").stdout
    assert "because case: fold → keep" in told
    assert "words  word_count   run, under 1 s (estimated)" in told
    assert "because top: 2 → 1" in told


def test_a_new_version_of_it_is_not_taken_for_ours(folder: Path, plugins: Path) -> None:
    """The plan names the package whose kind changed, and in which direction."""
    assert llmpipe(folder, plugins, "run", "spec.yaml").returncode == 0
    newer = shutil.copytree(plugins, folder / "newer")
    file = newer / "word_count" / "stage.py"
    text = file.read_text()
    assert "VERSION = 1" in text
    for version, which in ((2, "a newer"), (0, "an older")):
        file.write_text(text.replace("VERSION = 1", f"VERSION = {version}"))
        told = llmpipe(folder, newer, "plan", "spec.yaml").stdout
        assert (
            f"because the package llmpipe-word-count 0.3.0 has {which} version of the stage kind"
            in told
        )


def test_it_is_served_like_our_own(folder: Path, plugins: Path) -> None:
    """By the same command, with the key that its spec asks for, until a signal ends it."""
    (folder / "spec.yaml").write_text(SPEC.replace("top: 2", "api_key: '${secret:COUNT_KEY}'"))
    early = llmpipe(folder, plugins, "serve", "spec.yaml", "words")
    assert early.returncode == 1
    assert "the secret COUNT_KEY is not set" in early.stderr
    env = {"COUNT_KEY": "k", "PYTHONPATH": path_with(plugins)}
    early = llmpipe(folder, plugins, "serve", "spec.yaml", COUNT_KEY="k")
    assert early.returncode == 1
    assert "llmpipe run spec.yaml --only words" in early.stderr
    assert llmpipe(folder, plugins, "run", "spec.yaml", COUNT_KEY="k").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "llmpipe", "serve", "spec.yaml", "--port", "0"],
        cwd=folder, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process:
        line = process.stderr.readline()
        url = line.split()[2]
        assert line == f"serving on {url} (the count of a word at {url}/WORD); Ctrl-C stops\n"
        asking = Request(f"{url}/rose", headers={"Authorization": "Bearer k"})
        with urlopen(asking, timeout=10) as answer:
            assert json.load(answer) == {"word": "rose", "count": 2}
        with pytest.raises(HTTPError, match="401"):
            urlopen(f"{url}/rose", timeout=10)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""


def test_its_own_tests_pass(plugins: Path) -> None:
    """As its authors would run them, with what `llmpipe.testing` offers."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    env = {**os.environ, "PYTHONPATH": path_with(plugins)}
    found = subprocess.run(command, cwd=PACKAGE, env=env, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert "10 passed" in found.stdout


def test_its_fields_are_held_against_its_own_schema(folder: Path, plugins: Path) -> None:
    """All problems at once, each at its place, as for our own kinds."""
    (folder / "spec.yaml").write_text(
        SPEC.replace("column: text, top: 2", "colum: text, top: 0, case: upper")
    )
    result = llmpipe(folder, plugins, "validate", "spec.yaml")
    assert result.returncode == 2
    for message in (
        "spec.yaml:4:",
        "stages.words: unknown key 'colum'",
        "did you mean 'column'?",
        "stages.words: 'column' is missing",
        "stages.words.top: must be a whole number of at least 1, not 0",
        'stages.words.case: must be one of fold, keep, not "upper"',
    ):
        assert message in result.stderr, message
    (folder / "spec.yaml").write_text(SPEC.replace("column: text", "column: ' text'"))
    result = llmpipe(folder, plugins, "validate", "spec.yaml")
    assert "stages.words.column: begins or ends with a blank" in result.stderr


def test_its_failure_is_shown_like_any(folder: Path, plugins: Path) -> None:
    """A StageError of its own has a message and a hint."""
    (folder / "spec.yaml").write_text(SPEC.replace("column: text", "column: body"))
    result = llmpipe(folder, plugins, "run", "spec.yaml")
    assert result.returncode == 1
    assert (
        "stage words failed: ./rows.jsonl:1: the row has no column 'body'\n   it has: text"
        in result.stderr
    )


def test_it_is_in_the_schemas(folder: Path, plugins: Path) -> None:
    """``llmpipe schema`` describes it beside ours, ``llmpipe schema word_count`` by itself."""
    whole = json.loads(llmpipe(folder, plugins, "schema").stdout)
    assert "word_count" in whole["definitions"]["stage"]["properties"]["kind"]["enum"]
    assert "stage.word_count" in whole["definitions"]
    alone = json.loads(llmpipe(folder, plugins, "schema", "word_count").stdout)
    assert alone["required"] == ["kind", "data", "column"]
    column = alone["properties"]["column"]
    assert column["description"] == "The column whose words are counted."
    assert "word_count" not in llmpipe(folder, None, "schema").stdout


def test_our_own_published_schemas_stay_ours(folder: Path, plugins: Path) -> None:
    """Whatever else is installed, ``--write`` writes what we publish."""
    assert llmpipe(folder, plugins, "schema", "--write", "with").returncode == 0
    assert llmpipe(folder, None, "schema", "--check", "with").returncode == 0


def test_without_the_package_the_kind_is_unknown(folder: Path, plugins: Path) -> None:
    """The message lists what there is; with the package a misspelling is recognized."""
    result = llmpipe(folder, None, "run", "spec.yaml")
    assert result.returncode == 2
    assert "unknown kind 'word_count'" in result.stderr
    assert ", command, " in result.stderr
    (folder / "spec.yaml").write_text(SPEC.replace("word_count", "wordcount"))
    assert "did you mean 'word_count'?" in llmpipe(folder, plugins, "run", "spec.yaml").stderr


def test_a_broken_kind_harms_no_one_who_does_not_use_it(folder: Path) -> None:
    """Only a spec that asks for the kind hears of it."""
    packages = offer(folder, "odd = odd:Odd", "1 / 0")
    (folder / "spec.yaml").write_text(
        SPEC.split("  words:")[0]
        + "  a: {kind: command, run: 'echo > ${outputs.o}', outputs: {o: o.txt}}\n"
    )
    assert llmpipe(folder, packages, "run", "spec.yaml").returncode == 0
    result = llmpipe(folder, packages, "schema", "odd")
    assert result.returncode == 2
    assert result.stderr.startswith(WHO)


def test_two_packages_may_not_offer_one_kind(tmp_path: Path) -> None:
    """Which one was meant is not for us to guess."""
    offer(tmp_path, "odd = odd:Odd", CLASS)
    packages = offer(tmp_path, "odd = other:Odd", name="more-odd")
    message = refused(tmp_path, packages)
    assert "several packages offer the stage kind 'odd': " in message
    assert "the package odd-kinds 1.2" in message
    assert "the package more-odd 1.2" in message


def test_nobody_can_take_a_kind_of_ours(tmp_path: Path) -> None:
    """A package that calls its kind ``command`` is not even imported."""
    packages = offer(tmp_path, "command = odd:Odd", "1 / 0")
    (tmp_path / "spec.yaml").write_text(
        "version: 1\nname: x\nstages:\n  a: {kind: command, run: 'echo > ${outputs.o}', outputs: {o: o.txt}}\n"
    )
    assert llmpipe(tmp_path, packages, "run", "spec.yaml").returncode == 0


def test_a_name_of_ours_that_a_package_claims_is_told(tmp_path: Path) -> None:
    """Where the spec does not fit our kind, its author may have meant that of the package."""
    packages = offer(tmp_path, "command = odd:Odd", CLASS)
    message = refused(tmp_path, packages, "command")
    assert "stages.a: 'run' is missing" in message
    assert "stages.a.kind: 'command' is a kind of llmpipe's own" in message
    assert "that of the package odd-kinds 1.2 is not used: its authors must rename it" in message


WARNS = CLASS.replace(
    "    def run(ctx): return StageResult({})",
    """\
    def review(config, folder):
        return [
            Finding((), "heard before", warning=True),
            Finding((), "heard in it", warning=True, in_run=True),
        ]
    @staticmethod
    def run(ctx):
        ctx.warn("heard in it")
        return StageResult({})""",
).replace("import Ports", "import Finding, Ports")


def test_a_run_tells_each_warning_once(tmp_path: Path) -> None:
    """What its stage will say itself is not said before; ``plan`` and ``validate`` say all."""
    packages = offer(tmp_path, "odd = odd:Odd", WARNS)
    (tmp_path / "spec.yaml").write_text("version: 1\nname: x\nstages:\n  a: {kind: odd}\n")
    heard = ("heard before", "heard in it")
    for command in ("validate", "plan", "run --dry-run", "run", "run --quiet"):
        told = llmpipe(tmp_path, packages, *command.split(), "spec.yaml")
        assert told.returncode == 0, told.stderr
        counted = [told.stderr.count(text) for text in heard]
        assert counted == ([0, 0] if command == "run --quiet" else [1, 1]), told.stderr
        assert command == "run --quiet" or "warning: spec.yaml:4:3: stages.a: hea" in told.stderr


@pytest.mark.parametrize("text", [b"[llmpipe.stages]\nbroken\n", b"\xff\xfe"])
def test_a_package_whose_entry_points_cannot_be_read_is_named(folder: Path, text: bytes) -> None:
    """Only where a spec names a kind that is not ours; the message says which package it is."""
    damaged = folder / "packages" / "x-1.dist-info"
    damaged.mkdir(parents=True)
    (damaged / "entry_points.txt").write_bytes(text)
    told = llmpipe(folder, damaged.parent, "plan", "spec.yaml")
    assert told.returncode in (1, 2)
    assert str(damaged) in told.stderr
    assert "Traceback" not in told.stderr
