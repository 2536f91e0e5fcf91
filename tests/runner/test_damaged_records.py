"""Whatever stands in a file of the store, commands say what is wrong or go on without it."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from workspace import CHAIN, Workspace

from llmpipe.cli.main import main
from llmpipe.runner import lease
from llmpipe.runner.process import identity


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a spec that has run."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "a.txt").write_text("x\ny\n")
    workspace = Workspace(folder)
    workspace.write(CHAIN)
    workspace.run()
    return folder


@pytest.fixture
def home(ran: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store, undamaged; commands are called from beside its spec."""
    kept = ran.parent / "kept"
    if not kept.exists():
        shutil.copytree(ran, kept)
    shutil.rmtree(ran)
    shutil.copytree(kept, ran)
    monkeypatch.chdir(ran)
    return ran / ".llmpipe"


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Call the command line; return the exit code and what it said on standard error."""
    capsys.readouterr()
    return main(list(arguments)), capsys.readouterr().err


DEEP = "[" * 99_999


def test_a_lock_file_that_nests_deeply_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """libyaml's loader would overflow the stack, which ends the process without a word."""
    (home.parent / "chain.lock.yaml").write_text(DEEP)
    for command in ("plan", "gc"):
        code, told = call(capsys, command, "spec.yaml")
        assert code == 2
        assert "chain.lock.yaml" in told


@pytest.mark.parametrize("text", ["\udcff", "/a\0b\n", "", "/elsewhere/x.lock.yaml\n"])
def test_gc_frees_nothing_when_it_cannot_know_which_specs_use_the_store(
    home: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """An entry that names no lock file, or another, is named; the next run writes it again."""
    (entry,) = (home / "projects").iterdir()
    entry.write_bytes(text.encode("utf-8", "surrogateescape"))
    code, told = call(capsys, "gc", "spec.yaml")
    assert (code, f"{entry} is damaged" in told) == (1, True)
    assert call(capsys, "run", "spec.yaml", "--set", "params.word=two")[0] == 0
    assert call(capsys, "gc", "spec.yaml")[0] == 0


@pytest.mark.parametrize("text", [
    "[]", "null", "{}", DEEP, '{"event": "run-started"}', '{"event": "stage-ended"}', "1\n2\n",
    '{"event": "run-started", "run": "x", "name": "n", "profiles": [], "set": [], "time": "t"}',
])  # fmt: skip
def test_runs_go_on_without_events_that_are_none(
    home: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """A run without a record, and without a first event, is not a run."""
    (run,) = (home / "runs").iterdir()
    (run / "run.json").unlink()
    (run / "events.jsonl").write_text(text)
    for arguments in (["runs"], ["runs", "--json"], ["report"], ["runs", "show"]):
        assert call(capsys, *arguments)[0] in (0, 2)


def _changed(record: dict[str, Any], path: tuple[str, ...], value: Any) -> str:
    node = record
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("stages", "first", "status"), "fine"),
        (("stages", "first", "summary"), None),
        (("stages", "first", "causes"), {}),
        (("stages", "first", "error"), "x"),
        (("run",), 5),
        (("started",), 5),
        (("profiles",), None),
    ],
)
def test_a_damaged_record_of_a_run_is_passed_over_and_named(
    home: Path, capsys: pytest.CaptureFixture[str], path: tuple[str, ...], value: Any
) -> None:
    """`runs` says which one; to ask for it says what is wrong with it."""
    (run,) = (home / "runs").iterdir()
    record = run / "run.json"
    record.write_text(_changed(json.loads(record.read_text()), path, value))
    code, told = call(capsys, "runs")
    assert (code, f"passed over: {record}" in told) == (0, True)
    code, told = call(capsys, "runs", "show", run.name)
    assert (code, f"{record} is no record of a run" in told) == (2, True)


@pytest.mark.parametrize("text", [
    "[]", "null", DEEP, '{"inputs": []}', '{"tools": 1}', '{"config": "x", "inputs": {"src": {}}}',
])  # fmt: skip
def test_what_a_stage_was_made_of_is_told_by_the_lock_where_its_own_memory_is_damaged(
    home: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """The plan still says what has changed."""
    for path in (home / "latest").glob("*/*.json"):
        path.write_text(text)
    assert main(["plan", "spec.yaml", "--json", "--set", "params.word=two"]) == 0
    causes = json.loads(capsys.readouterr().out)["stages"]["first"]["causes"]
    assert [cause["cause"] for cause in causes] == ["config"]


@pytest.mark.parametrize("text", ["[]", "null", DEEP, '{"a/b@": 1}', '{"a/b@": ["x"]}'])
def test_damaged_commits_are_none(home: Path, text: str) -> None:
    """A hub repository is looked up again."""
    (home / "hub.json").write_text(text)
    assert main(["plan", "spec.yaml"]) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "drop table files",
        "alter table files rename to other",
        "alter table files add column more",
        "alter table files drop column sha256",
        "update files set sha256 = null",
        "update files set sha256 = 'x', hashed = null",
        "update files set hashed = 'x'",
        "pragma user_version = 99",
    ],
)
def test_a_stat_cache_with_other_tables_or_values_is_begun_again(
    home: Path, statement: str
) -> None:
    """It is only a memory; what a row that is not sound says is not believed."""
    assert main(["plan", "spec.yaml"]) == 0  # the copies' inodes are known now
    (path,) = home.glob("statcache-*.sqlite")
    with sqlite3.connect(path) as database:
        database.execute(statement)
    database.close()
    for _ in range(2):
        assert main(["run", "spec.yaml", "--plain"]) == 0
    record = json.loads((sorted((home / "runs").iterdir())[-1] / "run.json").read_text())
    assert {stage["status"] for stage in record["stages"].values()} == {"cached"}


@pytest.mark.parametrize("text", ["", "x", "-", "1 2", "\udcff", "1\0"])
def test_a_damaged_format_is_told_in_a_line(
    home: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """It is not shown, whatever bytes it has, and the hint says what to write."""
    (home / "format").write_bytes(text.encode("utf-8", "surrogateescape"))
    code, told = call(capsys, "plan", "spec.yaml")
    assert code == 1
    assert "format is damaged" in told
    assert "write 1 into it" in told


@pytest.mark.parametrize("name", ["latest", "projects", "runs", "memo", "store"])
def test_a_file_in_the_place_of_a_folder_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Nothing is written through it, and the message says where it is."""
    shutil.rmtree(home / name)
    (home / name).write_text("x")
    code, told = call(capsys, "run", "spec.yaml", "--set", "params.word=two")
    assert code == 1 or name == "memo"
    assert code == 0 or (f"{home / name}" in told and "move it away" in told)


def _owner(**fields: Any) -> str:
    return json.dumps({**identity(), "boot": "elsewhere", "stage": "s", "since": "x", **fields})


@pytest.mark.parametrize("text", [
    "", "[]", "null", "1", "{}", DEEP, '{"boot": 1}', '{"pid": []}', {"pid": "x"},
    {"head": []}, {"head": {"pid": 1}}, {"node": {}},
])  # fmt: skip
def test_a_lease_that_is_none_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | dict[str, Any]
) -> None:
    """A run does not wait for its owner longer than for a dead machine."""
    monkeypatch.setattr(lease, "EXPIRY", 0.1)
    text = text if isinstance(text, str) else _owner(**text)
    _require_taken_over(tmp_path, lambda path: path.write_text(text))


@pytest.mark.parametrize("make", [
    lambda path: path.mkdir(),
    lambda path: path.symlink_to("nowhere"),
    lambda path: path.symlink_to(path.name),
])  # fmt: skip
def test_a_folder_or_link_in_the_place_of_a_lease_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    """It is taken away like the lease of a dead machine."""
    monkeypatch.setattr(lease, "EXPIRY", 0.1)
    _require_taken_over(tmp_path, make)


def _require_taken_over(folder: Path, make: Any) -> None:
    make(folder / "k.json")
    told: list[Any] = []
    handlers = {
        name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    }
    try:
        with lease.hold(folder, folder, "k", {"stage": "own", "head": None}, told.append) as held:
            assert held.waited in (True, False)
            assert (lease.read_owner(folder / "k.json") or {})["stage"] == "own"
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
    assert not (folder / "k.json").exists()


def test_a_lease_with_a_strange_moment_can_be_told(tmp_path: Path) -> None:
    """The moment is shown as it stands."""
    from llmpipe.runner.messages import owner_text
    from llmpipe.runner.occupancy import told

    for since in ("x", "2026-01-01", "9999-12-31T23:59:59", "0001-01-01T00:00:00+00:00"):
        (tmp_path / "k.json").write_text(_owner(since=since, node="far"))
        owner = lease.read_owner(tmp_path / "k.json")
        assert owner is not None
        assert "which is making stage 's' since" in owner_text(told(owner))


def test_a_damaged_entry_of_the_journal_is_asked_again(tmp_path: Path) -> None:
    """It may have any shape, also one that no reader can follow."""
    from llmpipe.backends.openai.chat import Said
    from llmpipe.backends.openai.journal import FILE, Journal

    sound = {"text": "x", "truncated": False}
    lines = [DEEP, "[]", '{"key": []}', '{"key": "a", "reply": 1}', '{"key": "b", "reply": {}}']
    (tmp_path / FILE).write_text("\n".join(lines) + "\n")
    with Journal(tmp_path) as journal:
        assert [journal.get(key, Said) for key in "abc"] == [None, None, None]
        journal.put("a", sound)
        assert journal.get("a", Said) == sound
