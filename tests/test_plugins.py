"""Stage kinds of other people's packages, installed by pip as anybody would install them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

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


def path_with(packages: Path) -> str:
    """Return a PYTHONPATH that has these packages, too."""
    return os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH", "")]))


def llmpipe(
    folder: Path, packages: Path | None, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line where these packages are installed, too."""
    path = {} if packages is None else {"PYTHONPATH": path_with(packages)}
    return subprocess.run(
        [sys.executable, "-m", "llmpipe", *arguments],
        cwd=folder,
        env={**os.environ, **path, **env},
        capture_output=True,
        text=True,
    )


def offer(
    folder: Path,
    points: str,
    code: str = "",
    name: str = "odd-kinds",
    group: str = "llmpipe.stages",
) -> Path:
    """Make a folder of packages in which one offers these entry points, as pip would leave it."""
    packages = folder / "packages"
    info = packages / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
    if code:
        (packages / "odd.py").write_text(code)
    return packages


def refused(folder: Path, packages: Path, kind: str = "odd") -> str:
    """Return the message with which a spec that uses a kind is refused."""
    (folder / "spec.yaml").write_text(f"version: 1\nname: x\nstages:\n  a: {{kind: {kind}}}\n")
    result = llmpipe(folder, packages, "run", "spec.yaml")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


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


CLASS = """
from llmpipe.contracts import Ports, StageConfig, StageDefaults, StageResult
class Config(StageConfig, frozen=True, kw_only=True):
    pass
class Odd(StageDefaults):
    Config = Config
    VERSION = 1
    determinism = "exact"
    @staticmethod
    def ports(config): return Ports({}, {})
    @staticmethod
    def run(ctx): return StageResult({})
"""

WHO = "the stage kind 'odd' of the package odd-kinds 1.2 cannot be used: "


@pytest.mark.parametrize(
    ("point", "code", "why"),
    [
        ("odd:Odd", "import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("odd:Odd", "1 / 0", "ZeroDivisionError: division by zero"),
        ("odd:Odd", "def (", "SyntaxError: "),
        ("odd:Odd", "raise SystemExit(3)", "SystemExit: 3"),
        ("odd:Odd", "x = 1", "AttributeError: module 'odd' has no attribute 'Odd'"),
        ("nowhere.odd:Odd", "", "ModuleNotFoundError: No module named 'nowhere'"),
        ("odd:Odd", "Odd = 3", "it is not a class"),
        ("odd:Odd", "class Odd: pass", "its Config is not a subclass of llmpipe.contracts.StageConfig"),
        ("odd:Odd", "class Odd: pass", "its VERSION is not a whole number"),
        ("odd:Odd", "class Odd: pass", "it does not inherit from llmpipe.contracts.StageDefaults"),
        ("odd:Odd", CLASS.replace('"exact"', '"always"'), "its determinism is not one of exact, same-machine"),
        ("odd:Odd", CLASS.replace("def run", "def walk"), "it has no run"),
        ("odd:Odd", CLASS.replace("VERSION = 1", "VERSION = True"), "its VERSION is not a whole number"),
        ("odd:Odd", CLASS.replace("frozen=True", "frozen=True, forbid_unknown_fields=False"),
         "its Config takes unknown fields"),
        ("odd:Odd", CLASS.replace("VERSION = 1", "VERSION = 1; imports = 'torch'"),
         "its imports are not a tuple of names"),
    ],
)  # fmt: skip
def test_a_broken_kind_is_named_with_its_package(
    tmp_path: Path, point: str, code: str, why: str
) -> None:
    """What is wrong, whose it is and where to look: never a traceback."""
    message = refused(tmp_path, offer(tmp_path, f"odd = {point}", code))
    assert message.startswith(WHO), message
    assert why in message
    assert f"it is the entry point {point} in the group llmpipe.stages; ask its authors" in message


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("def ports(config): return 1 / 0", "ports raised ZeroDivisionError: division by zero"),
        ("def ports(config): return {}", "ports returned {}, not Ports"),
        ("def ports(config): return Ports({}, {'o': 'metrics'})", "ports: the output 'o' is 'metrics', not an Output"),
        ("def ports(config): return Ports({}, {'o': Output('metric')})", "ports: the output 'o' is of type 'metric', not records, dataset"),
        ("def ports(config): return Ports({}, {'o': Output('gguf', origin='m')})", "the output 'o' comes from 'm', which is not an input"),
        ("def ports(config): return Ports({'i': Input(('i',), './x', ('rows',))}, {})", "the input 'i' accepts 'rows', not one of records"),
        ("def ports(config): return Ports({}, {'o': Output('file')}, 'p')", "the default output 'p' is not one of o"),
        ("def ports(config): return 1 / 0", "odd.py:10)"),
        ("def ports(config): return Ports({'i': Input(('dat',), './x', ('file',))}, {})", "ports: the input 'i' is at the path ('dat',), but Config has no field 'dat'"),
        ("def problems(config): return [(('dat',), 'wrong')]", "problems: the problem 'wrong' is at the path ('dat',), but Config has no field 'dat'"),
        ("def problems(config): return 1 / 0", "odd.py:12)"),
        ("def problems(config): return ['wrong']", "problems returned something else than a list of (path, message)"),
        ("def fingerprint(config): return {'a': {1, 2}}", "fingerprint returned what is not JSON"),
        ("def tools(config): return 'torch'", "tools returned 'torch', not a list of str"),
        ("def needs(config, inputs): raise KeyError('x')", "needs raised KeyError: 'x'"),
    ],
)  # fmt: skip
def test_a_wrong_answer_is_blamed_on_the_package(tmp_path: Path, answer: str, why: str) -> None:
    """The spec is sound: whose fault it is stands in the message, and no traceback."""
    code = CLASS.replace("import Ports,", "import Input, Output, Ports,")
    added = "    @staticmethod\n    def run"
    if answer.startswith("def ports"):
        code = code.replace("def ports(config): return Ports({}, {})", answer)
    else:
        code = code.replace(added, f"    @staticmethod\n    {answer}\n{added}")
    message = refused(tmp_path, offer(tmp_path, "odd = odd:Odd", code))
    assert message.startswith(WHO), message
    assert why in message


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("None", "run returned None, not a StageResult"),
        ("StageResult({'p': ctx.out})", "lacks the output 'o', which ports declares"),
        ("StageResult({'o': ctx.out}, {'loss': {'a': {1}}})", "the metric 'loss.a' is {1}, a set: not JSON"),
    ],
)  # fmt: skip
def test_a_wrong_result_is_the_fault_of_its_kind(tmp_path: Path, answer: str, why: str) -> None:
    """The output or metric is named, and where the kind's ``run`` is."""
    code = CLASS.replace("import Ports,", "import Output, Ports,")
    code = code.replace("Ports({}, {})", "Ports({}, {'o': Output('file')})")
    packages = offer(tmp_path, "odd = odd:Odd", code.replace("StageResult({})", answer))
    (tmp_path / "spec.yaml").write_text("version: 1\nname: x\nstages:\n  a: {kind: odd}\n")
    told = llmpipe(tmp_path, packages, "run", "spec.yaml")
    assert told.returncode == 1
    assert why in told.stderr
    assert f"correct run of the kind odd: {packages / 'odd.py'}:11" in told.stderr


def test_a_metric_that_is_not_a_number_is_told(tmp_path: Path) -> None:
    """The artifacts of a long stage are kept; the metric is null."""
    code = CLASS.replace("StageResult({})", "StageResult({}, {'loss': float('nan')})")
    packages = offer(tmp_path, "odd = odd:Odd", code)
    (tmp_path / "spec.yaml").write_text("version: 1\nname: x\nstages:\n  a: {kind: odd}\n")
    told = llmpipe(tmp_path, packages, "run", "spec.yaml", "--json")
    assert told.returncode == 0
    assert json.loads(told.stdout)["stages"]["a"]["metrics"] == {"loss": None}
    assert "the metric 'loss' is nan, which JSON cannot hold: null is stored" in told.stderr


@pytest.mark.parametrize(
    ("ability", "why"),
    [
        ("Servable", "its Config is not a subclass of llmpipe.contracts.ServedConfig"),
        ("Servable", "it declares Servable and has no serve"),
        ("Answers", "it declares Answers and has no answerer"),
        ("Compilable", "it declares Compilable and has no compile_to"),
        ("Showable", "it declares Showable and has no show_rows"),
        ("Estimates", "it declares Estimates and has no estimate"),
    ],
)
def test_an_ability_is_what_a_kind_must_have(tmp_path: Path, ability: str, why: str) -> None:
    """What is declared and not there is told when the kind is used, not when it is served."""
    code = CLASS.replace("import Ports,", f"import {ability}, Ports,")
    code = code.replace("Odd(StageDefaults)", f"Odd(StageDefaults, {ability})")
    assert why in refused(tmp_path, offer(tmp_path, "odd = odd:Odd", code))


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


SERVED = """
from llmpipe.contracts import Input, Output, Ports, Servable, ServedConfig, StageDefaults, StageResult
from contextlib import contextmanager
from http.server import HTTPServer, BaseHTTPRequestHandler
class Config(ServedConfig, frozen=True, kw_only=True):
    data: str
class Odd(StageDefaults, Servable):
    Config = Config
    VERSION = 1
    determinism = "exact"
    @staticmethod
    def ports(config):
        return Ports({"data": Input(("data",), config.data, ("file",))}, {"o": Output("file")}, "o")
    @staticmethod
    def run(ctx):
        (ctx.out / "o").write_text("o")
        return StageResult({"o": ctx.out / "o"})
    @staticmethod
    @contextmanager
    def serve(ctx):
        ctx.output("o")
        HTTPServer((ctx.host, ctx.port), BaseHTTPRequestHandler)
        1 / 0
        yield
"""


def test_serving_that_fails_names_stage_package_and_place(tmp_path: Path) -> None:
    """One command makes what is missing; a taken port and a bug in ``serve`` are told apart."""
    packages = offer(tmp_path, "odd = odd:Odd", SERVED)
    (tmp_path / "spec.yaml").write_text(
        "version: 1\nname: x\nstages:\n"
        "  first: {kind: command, run: 'echo > ${outputs.o}', outputs: {o: o.txt}}\n"
        "  a: {kind: odd, data: first}\n"
    )
    early = llmpipe(tmp_path, packages, "serve", "spec.yaml")
    assert early.returncode == 1
    assert "make it first: llmpipe run spec.yaml --only a\n" in early.stderr
    assert llmpipe(tmp_path, packages, "run", "spec.yaml", "--only", "a").returncode == 0
    told = llmpipe(tmp_path, packages, "serve", "spec.yaml", "--port", "0")
    assert told.returncode == 2
    whose = "a: serve of the stage kind 'odd' of the package odd-kinds 1.2 raised "
    assert told.stderr.startswith(
        f"{whose}ZeroDivisionError: division by zero ({packages}/odd.py:2"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told = llmpipe(tmp_path, packages, "serve", "spec.yaml", "--port", port)
    assert told.returncode == 1
    assert told.stderr.startswith(f"a: cannot listen on 127.0.0.1:{port}: the port is in use or")


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
