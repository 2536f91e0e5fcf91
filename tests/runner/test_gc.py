"""gc: what lock files, last runs and recent runs need stays, the rest goes, never the journal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmpipe.errors import SpecError, StoreError
from llmpipe.runner import gc
from llmpipe.runner.gc import find_garbage, free
from llmpipe.runner.project import Project
from llmpipe.runner.store import Store


def collect(workspace: Any, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
    """Run gc and return what it says as data."""
    result = workspace.call("gc", "spec.yaml", "--json", *arguments, **env)
    assert result.returncode == code, result.stderr
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def contents(home: Path) -> dict[str, set[str]]:
    """Name what a store holds."""
    folders = ("store/objects", "store/keys", "work", "runs", "journal")
    return {name: {p.name for p in (home / name).glob("*")} for name in folders}


def age(home: Path, seconds: float = 86400) -> None:
    """Make everything in a store look as if it had come so much earlier."""
    moment = time.time() - seconds
    for path in (home / "store" / "keys").iterdir():
        os.utime(path, (moment, moment))
    for path in (home / "work").glob("*"):
        os.utime(path, (moment, moment))
    for i, run in enumerate(sorted((home / "runs").iterdir())):
        began = time.strftime("%Y%m%d-%H%M%S", time.gmtime(moment + i))
        run.rename(run.with_name(f"{began}-{i:04x}"))


@pytest.fixture
def home(workspace: Any) -> Path:
    """The store of a chain that ran a day ago with three words; nothing of it is locked."""
    for word in ("two", "three", "four"):
        workspace.run("--set", f"params.word={word}")
    workspace.trace()
    folder: Path = workspace.folder / ".llmpipe"
    age(folder)
    return folder


def test_the_rest_is_freed_and_a_run_is_cached_still(
    workspace: Any, home: Path, statuses: Callable[..., dict[str, str]]
) -> None:
    """The last run's artifacts stay; what only older runs made goes, with their logs."""
    before = contents(home)
    assert len(before["store/keys"]) == 9
    assert len(before["store/objects"]) == 7  # there are three lines each time
    said = collect(workspace, "--keep-runs", "1")
    after = contents(home)
    assert {name: len(after[name]) for name in ("store/objects", "store/keys", "runs")} == {
        "store/objects": 3, "store/keys": 3, "runs": 1,
    }  # fmt: skip
    assert (said["artifacts"], said["records"], said["runs"]) == (4, 6, 2)
    assert said["bytes"] > 0
    result = workspace.run("--set", "params.word=four")
    assert set(statuses(result).values()) == {"cached"}
    assert workspace.trace() == []
    assert collect(workspace, "--keep-runs", "2")["records"] == 0


def test_the_latest_runs_are_kept(workspace: Any, home: Path) -> None:
    """Each of the N latest runs is cached still; those before are not."""
    collect(workspace, "--keep-runs", "2")
    for word in ("three", "four"):
        workspace.run("--set", f"params.word={word}")
    assert workspace.trace() == []
    workspace.run("--set", "params.word=two")
    assert "first" in workspace.trace()


def test_a_dry_run_says_the_same_and_frees_nothing(workspace: Any, home: Path) -> None:
    """--dry-run counts what gc then frees."""
    before = contents(home)
    planned = collect(workspace, "--keep-runs", "1", "--dry-run")
    assert contents(home) == before
    assert not planned["freed"]
    assert collect(workspace, "--keep-runs", "1") == {**planned, "freed": True}
    told = workspace.call("gc", "spec.yaml", "-n")
    assert told.stdout == "would free 0 bytes: 0 artifacts, 0 records, 0 unfinished, 0 runs\n"


def test_the_lock_file_protects(workspace: Any) -> None:
    """What the lock names stays, however long ago and however often something else ran since."""
    locked = workspace.run()
    for word in ("two", "three"):
        workspace.run("--set", f"params.word={word}")
    age(workspace.folder / ".llmpipe")
    collect(workspace, "--keep-runs", "1")
    workspace.trace()
    again = workspace.run()
    assert workspace.trace() == []
    assert again["stages"]["third"]["key"] == locked["stages"]["third"]["key"]


def test_specs_that_share_a_store_protect_each_other(workspace: Any) -> None:
    """gc for one spec keeps what the lock of the other names."""
    shared = {"LLMPIPE_HOME": str(workspace.folder / "home")}
    other = workspace.folder / "other"
    other.mkdir()
    (other / "a.txt").write_text("other\n")
    text = workspace.spec.read_text()
    (other / "spec.yaml").write_text(text.replace("name: chain", "name: other"))
    assert workspace.call("run", "other/spec.yaml", **shared).returncode == 0
    assert (
        workspace.call("run", "other/spec.yaml", "--set", "params.word=x", **shared).returncode == 0
    )
    for word in ("a", "b", "c"):
        workspace.run("--set", f"params.word={word}", **shared)
    age(workspace.folder / "home")
    shutil.rmtree(workspace.folder / "home" / "latest")
    collect(workspace, "--keep-runs", "1", **shared)
    (other / "trace").unlink()
    assert workspace.call("run", "other/spec.yaml", **shared).returncode == 0
    assert not (other / "trace").exists()
    (other / "other.lock.yaml").unlink()  # the spec is given up: nothing is kept for it
    shutil.rmtree(workspace.folder / "home" / "latest")
    workspace.run(**shared)
    age(workspace.folder / "home")
    assert collect(workspace, "--keep-runs", "1", **shared)["records"] > 0


def test_an_unreadable_lock_file_frees_nothing(workspace: Any, home: Path) -> None:
    """What it needs is unknown: gc refuses, naming it."""
    workspace.run()
    lock = workspace.folder / "chain.lock.yaml"
    before = contents(home)
    for text in ("<<<<<<< ours\n", "profiles: [", "version: 99\n", "a: 1\n"):
        lock.write_text(text)
        result = workspace.call("gc", "spec.yaml", "--keep-runs", "1")
        assert result.returncode == 2
        assert "chain.lock.yaml" in result.stderr
        assert "Traceback" not in result.stderr
        assert contents(home) == before
    with pytest.raises(SpecError):
        find_garbage(Store(home), 1)


def test_gc_waits_for_no_run(workspace: Any) -> None:
    """While a run goes on gc refuses, and so does verify; nothing is touched."""
    workspace.write(
        "version: 1\nname: slow\nstages:\n"
        '  slow: {kind: command, run: "touch begun; sleep 30; echo x > ${outputs.o}", outputs: {o: o.txt}}\n'
    )
    process = workspace.start("run", "spec.yaml", "--json")
    deadline = time.monotonic() + 30
    while not (workspace.folder / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    for command in (("gc",), ("cache", "verify")):
        result = workspace.call(*command, "spec.yaml")
        assert result.returncode == 1
        assert "is in use" in result.stderr
        assert f"{command[-1]} must wait until no run is active" in result.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert workspace.call("gc", "spec.yaml").returncode == 0


def test_the_journal_is_never_freed(workspace: Any, home: Path) -> None:
    """Replies that were paid for stay, whatever their age."""
    replies = home / "journal" / "replies.jsonl"
    replies.write_text('{"paid": true}\n')
    os.utime(replies, (0, 0))
    collect(workspace, "--keep-runs", "1")
    assert replies.read_text() == '{"paid": true}\n'


def test_checkpoints_go_only_when_older_than_the_runs_kept(workspace: Any, home: Path) -> None:
    """What a stage left to go on from stays while a kept run may have left it."""
    for name, hours in (("old", 48), ("recent", 1)):
        (home / "work" / name / "checkpoint").mkdir(parents=True)
        (home / "work" / name / "checkpoint" / "state").write_bytes(b"x" * 1000)
        moment = time.time() - hours * 3600
        os.utime(home / "work" / name, (moment, moment))
    said = collect(workspace, "--keep-runs", "1")
    assert said["unfinished"] == 1
    assert contents(home)["work"] - {"old"} == contents(home)["work"]
    assert (home / "work" / "recent" / "checkpoint" / "state").exists()


def test_what_was_half_written_goes(workspace: Any, home: Path) -> None:
    """What killed workers left in the workshop is freed, and counted."""
    half = Store(home).tmp / "abc-1" / "out"
    half.mkdir(parents=True)
    (half / "model").write_bytes(b"x" * 5000)
    (home / "store" / "keys" / ".k.json.77").write_text("half")
    said = collect(workspace)
    assert (said["unfinished"], said["records"]) == (1, 1)
    assert said["bytes"] >= 5000
    assert not list((home / "store" / "tmp").glob("*/*"))


def test_what_an_orphan_finished_is_kept(workspace: Any) -> None:
    """A worker whose head was killed publishes; gc before the next run does not take it."""
    workspace.write(
        "version: 1\nname: night\nstages:\n"
        '  long: {kind: command, run: "echo x >> trace; sleep 2; echo x > ${outputs.o}", outputs: {o: o.txt}}\n'
    )
    process = workspace.start("run", "spec.yaml")
    deadline = time.monotonic() + 30
    while not (workspace.folder / "trace").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    keys = workspace.folder / ".llmpipe" / "store" / "keys"
    while not list(keys.glob("*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    assert collect(workspace, "--keep-runs", "1")["records"] == 0
    workspace.trace()
    workspace.run()
    assert workspace.trace() == []


def test_what_was_pulled_is_kept(workspace: Any) -> None:
    """A pull is not a run, but what it brought since the runs that are kept stays."""
    text = workspace.spec.read_text()
    workspace.write(f"{text}cache: {{remote: ./shared}}\n")
    workspace.run()
    assert workspace.call("push", "spec.yaml").returncode == 0
    other = {"LLMPIPE_HOME": str(workspace.folder / "other")}
    (workspace.folder / "chain.lock.yaml").unlink()
    assert workspace.call("pull", "spec.yaml", **other).returncode == 0
    said = collect(workspace, "--keep-runs", "1", **other)
    assert (said["records"], said["artifacts"]) == (0, 0)


def test_a_gc_that_is_killed_leaves_a_whole_store(
    workspace: Any, home: Path, statuses: Callable[..., dict[str, str]], monkeypatch: Any
) -> None:
    """Stopped after any removal, no record names an object that is gone, and the run is cached."""
    store = Store(home)
    total = len(list(find_garbage(store, 1).paths()))
    for stop in range(0, total, 3):
        copy = workspace.folder / f"copy-{stop}"
        shutil.copytree(home, copy, symlinks=True)
        store = Store(copy)
        garbage = find_garbage(store, 1)
        paths = list(garbage.paths())

        def until_killed(paths: list[Path] = paths, stop: int = stop) -> Any:
            yield from paths[:stop]
            raise KeyboardInterrupt

        monkeypatch.setattr(type(garbage), "paths", lambda self, until=until_killed: until())
        with pytest.raises(KeyboardInterrupt):
            free(garbage, store)
        monkeypatch.undo()
        for path in store.keys.glob("*.json"):
            record = store.record(path.stem)
            assert record is not None
            assert store.missing(record) == []
    result = workspace.run("--set", "params.word=four", LLMPIPE_HOME=str(copy))
    assert set(statuses(result).values()) == {"cached"}


def test_what_cannot_be_removed_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gc does not claim to have freed what the system would not remove."""
    store = Store(home)
    garbage = find_garbage(store, 1)

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(gc, "remove_tree", refuse)
    with pytest.raises(StoreError) as caught:
        free(garbage, store)
    assert "Permission denied" in str(caught.value)


def test_no_store_is_made_to_be_cleaned(workspace: Any) -> None:
    """A wrong path ends in 2 and leaves nothing behind; so does a wrong number of runs."""
    for command in (("gc",), ("cache", "verify")):
        result = workspace.call(*command, "spec.yaml")
        assert result.returncode == 2
        assert "there is no store in" in result.stderr
    assert not (workspace.folder / ".llmpipe").exists()
    assert workspace.call("gc", "spec.yaml", "--keep-runs", "0").returncode == 2


STORE_COMMANDS = (("gc",), ("cache", "verify"), ("runs", "--spec"))


def test_a_folder_is_not_taken_for_a_spec(workspace: Any) -> None:
    """Beside a folder that was meant as the project lies another store: it is not touched."""
    inner = workspace.folder / "inner"
    inner.mkdir()
    workspace.run()
    for command in STORE_COMMANDS:
        for shared in ({}, {"LLMPIPE_HOME": str(workspace.folder / ".llmpipe")}):
            result = workspace.call(*command, "inner", **shared)
            assert result.returncode == 2
            assert "inner is a folder, not a spec" in result.stderr
            assert f"did you mean {Path('inner/spec.yaml')}?" in result.stderr


def test_a_spec_that_is_not_there_names_no_store(workspace: Any) -> None:
    """A mistyped or deleted spec is refused, unless LLMPIPE_HOME says where the store is."""
    workspace.run()
    workspace.spec.rename(workspace.folder / "other.yaml")
    for command in STORE_COMMANDS:
        result = workspace.call(*command, "spec.yaml")
        assert result.returncode == 2
        assert "there is no spec spec.yaml" in result.stderr
        assert "if it was deleted, set LLMPIPE_HOME" in result.stderr
        home = str(workspace.folder / ".llmpipe")
        assert workspace.call(*command, "spec.yaml", LLMPIPE_HOME=home).returncode == 0


def test_a_record_of_another_shape_protects_nothing(workspace: Any, home: Path) -> None:
    """A run.json that is not a record counts as missing: what else is needed stays."""
    for run in (home / "runs").iterdir():
        (run / "run.json").write_text("{}")
    assert collect(workspace, "--keep-runs", "1")["records"] == 6
    assert workspace.call("runs").returncode == 0
    workspace.run("--set", "params.word=four")
    assert workspace.trace() == []


def test_what_removed_stages_made_is_freed(workspace: Any) -> None:
    """Their last runs protect nothing once the project has forgotten what its spec has no more."""
    text = workspace.spec.read_text()
    workspace.write(text.replace("params: {word: one}", "params: {word: one}\nprofiles: {p: {}}"))
    for profile in ([], ["--profile", "p"]):
        workspace.run(*profile)
    shorter = workspace.spec.read_text().splitlines(keepends=True)[:-1]
    workspace.write("".join(shorter).replace("sort", "sort -r"))
    workspace.run()
    project = Project.open(workspace.spec)
    project.forget_removed()
    assert project.last_ingredients("second") is not None
    assert project.store.last_ingredients(workspace.spec, "default", "third") is None
    assert project.store.last_ingredients(workspace.spec, "p", "third") is not None
    for path in (workspace.folder / ".llmpipe" / "latest").glob("*/third.json"):
        path.unlink()  # the profile's, which the run without it does not forget
    (workspace.folder / "chain.lock.yaml").unlink()
    age(workspace.folder / ".llmpipe")
    assert collect(workspace, "--keep-runs", "1")["records"] == 1


def test_who_waits_for_the_store_says_for_whom(workspace: Any) -> None:
    """A run that begins while gc or verify holds the store names it, and goes on when it is free."""
    workspace.run()
    with Store(workspace.folder / ".llmpipe").alone("gc"):
        process = workspace.start("run", "spec.yaml", "--force", "first", "--json")
        said = process.stderr.readline()
        assert process.poll() is None
    out, _ = process.communicate(timeout=60)
    assert said == f"waits for process {os.getpid()} (llmpipe gc), which holds the store\n"
    assert json.loads(out)["status"] == "done"


def test_a_holder_that_is_gone_is_not_named(workspace: Any) -> None:
    """What a killed gc left in the lock's file is taken out by the next who finds himself alone."""
    workspace.run()
    lock = workspace.folder / ".llmpipe" / "lock"
    assert lock.read_text() == ""
    lock.write_text("123 (llmpipe gc)")
    workspace.run()
    assert lock.read_text() == ""
