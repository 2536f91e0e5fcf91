"""A run that would find nothing to do is told from memory, and only as long as that is true."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace

from llmpipe.runner import recall
from llmpipe.runner.store import Store

pytestmark = pytest.mark.slow

SPEC = """\
version: 1
name: chain
extends: ./base.yaml
profiles: {loud: {params: {word: "${env:WORD}!"}}}
stages:
  first:
    kind: command
    run: "echo first >> trace; cat ${inputs.src} > ${outputs.o}; echo ${params.word} >> ${outputs.o}"
    inputs: {src: ./data/a.txt}
    outputs: {o: o.txt}
  second: {kind: command, run: "echo second >> trace; sort ${inputs.i} > ${outputs.o}", inputs: {i: first}, outputs: {o: o.txt}}
"""
BASE = 'version: 1\nparams: {word: "${env:WORD}"}\n'


@pytest.fixture
def remembered(tmp_path: Path) -> Workspace:
    """A spec that was run: from now on there is nothing to do."""
    workspace = Workspace(tmp_path)
    workspace.write(SPEC)
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("text a\n")
    (tmp_path / "data").symlink_to("real")
    assert _run(workspace) == ["first", "second"]
    assert _is_recalled(workspace)
    return workspace


def _run(workspace: Workspace, *arguments: str, word: str = "one") -> list[str]:
    """Run the spec; return the stages that really ran."""
    told = workspace.call("run", "spec.yaml", *arguments, WORD=word)
    assert told.returncode == 0, told.stderr
    return workspace.trace()


def _is_recalled(workspace: Workspace, *arguments: str, word: str = "one") -> bool:
    """Run the spec, where nothing is to be done; tell whether that came from memory."""
    told = workspace.call("run", "spec.yaml", *arguments, WORD=word, PYTHONPROFILEIMPORTTIME="1")
    assert told.returncode == 0, told.stderr
    assert workspace.trace() == []
    assert "= second: cached" in told.stderr
    return "llmpipe.spec.load" not in told.stderr


def _last_record(workspace: Workspace) -> dict[str, Any]:
    *_, last = sorted(workspace.folder.glob(".llmpipe/runs/*/run.json"))
    record: dict[str, Any] = json.loads(last.read_bytes())
    return record


def test_a_recalled_run_leaves_the_same_record(remembered: Workspace) -> None:
    """Its events and its record are those of the long way, but for the times."""
    told = []
    for options in ((), ("--json",)):  # JSON is always told by the long way
        remembered.call("run", "spec.yaml", *options, WORD="one")
        record = _last_record(remembered)
        events = remembered.folder / ".llmpipe" / "runs" / record["run"] / "events.jsonl"
        lines = [json.loads(line) for line in events.read_text().splitlines()]
        for one in (record, *lines):
            for field in ("run", "time", "started", "ended"):
                one.pop(field, None)
        record.pop("seconds")
        lines[-1].pop("seconds")
        told.append((record, lines))
    assert told[0] == told[1]
    assert [event["event"] for event in told[0][1]] == [
        "run-started", "stage-ended", "stage-ended", "run-ended",
    ]  # fmt: skip


def _edit(workspace: Workspace, name: str, old: str, new: str) -> None:
    path = workspace.folder / name
    path.write_text(path.read_text().replace(old, new))


def _edit_unseen(workspace: Workspace) -> None:
    """Change an input to other bytes of the same size with the same time of change."""
    path = workspace.folder / "real" / "a.txt"
    seen = path.stat()
    path.write_text("text b\n")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def _turn_link(workspace: Workspace) -> None:
    """Let the folder of the input lead elsewhere."""
    (workspace.folder / "other").mkdir()
    (workspace.folder / "other" / "a.txt").write_text("text c\n")
    (workspace.folder / "data").unlink()
    (workspace.folder / "data").symlink_to("other")


def _store_file(workspace: Workspace, pattern: str) -> Path:
    return sorted((workspace.folder / ".llmpipe" / "store").glob(pattern))[-1]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda w: _edit(w, "real/a.txt", "a", "z"), ["first", "second"]),
        (_edit_unseen, ["first", "second"]),
        (_turn_link, ["first", "second"]),
        (lambda w: _edit(w, "spec.yaml", "sort $", "sort -r $"), ["second"]),
        (lambda w: _edit(w, "base.yaml", "${env:WORD}", "two"), ["first", "second"]),
        (lambda w: _store_file(w, "keys/*.json").unlink(), None),
    ],
)
def test_what_has_changed_runs(
    remembered: Workspace, change: Callable[[Workspace], None], again: list[str] | None
) -> None:
    """However an input, the spec or the store changes, the run sees it."""
    change(remembered)
    ran = _run(remembered)
    assert ran == again if again is not None else len(ran) == 1


def test_what_the_artifacts_lost_is_made_again(remembered: Workspace) -> None:
    """A file that is gone or cut off means that the artifact is gone."""
    for harm in (Path.unlink, lambda path: os.truncate(path, 1)):
        for path in (remembered.folder / ".llmpipe" / "store" / "objects").glob("*/data/o.txt"):
            path.parent.chmod(0o755)
            path.chmod(0o644)
            harm(path)
        assert _run(remembered) == ["first", "second"]
        assert _is_recalled(remembered)


def test_another_value_of_a_variable_is_seen(remembered: Workspace) -> None:
    """What a spec takes from the environment belongs to what it is."""
    assert _run(remembered, word="other") == ["first", "second"]
    assert _run(remembered) == []


def test_profiles_have_memories_of_their_own(remembered: Workspace) -> None:
    """One does not stand for the other, and both are kept."""
    assert _run(remembered, "--profile", "loud") == ["first", "second"]
    assert _is_recalled(remembered, "--profile", "loud")
    assert _run(remembered) == []  # the lock file has another section now
    assert _is_recalled(remembered)


def test_a_lock_file_that_is_gone_is_written_again(remembered: Workspace) -> None:
    """Memory does not hide what a run is to leave behind."""
    lock = remembered.folder / "chain.lock.yaml"
    text = lock.read_text()
    lock.unlink()
    assert _run(remembered) == []
    assert lock.read_text() == text


def test_a_comment_costs_one_long_way(remembered: Workspace) -> None:
    """An edit that changes nothing is looked at once."""
    _edit(remembered, "spec.yaml", "name: chain", "name: chain  # and no more")
    assert not _is_recalled(remembered)
    assert _is_recalled(remembered)


def test_options_that_ask_for_more_are_heeded(remembered: Workspace) -> None:
    """Memory stands for a plain run alone."""
    assert _run(remembered, "--force", "second") == ["second"]
    assert _run(remembered, "--set", "params.word=new") == ["first", "second"]
    told = remembered.call("run", "spec.yaml", "--dry-run", WORD="one")
    assert "first" in told.stdout
    told = remembered.call("run", "spec.yaml", "--quiet", WORD="one")
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


def test_another_llmpipe_does_not_believe_it(
    remembered: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other code found may not be what this code would find."""
    store = Store(remembered.folder / ".llmpipe")
    monkeypatch.setenv("WORD", "one")
    assert recall.recall(store, remembered.spec, [])
    monkeypatch.setattr(recall, "_PACKAGE", tmp_path / "real")
    assert recall.recall(store, remembered.spec, []) is None


def test_a_newer_tool_is_seen(remembered: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory names the versions of the tools that shape the artifacts."""
    (path,) = (remembered.folder / ".llmpipe" / "memo").glob("nothing-to-do-*.json")
    memory = json.loads(path.read_bytes().partition(b"\n")[2])
    monkeypatch.setenv("WORD", "one")
    store = Store(remembered.folder / ".llmpipe")
    for version, found in ((recall.tool_version("msgspec"), True), ("0.0.1", False)):
        text = json.dumps({**memory, "tools": {"msgspec": version}})
        path.write_text(f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        assert (recall.recall(store, remembered.spec, []) is not None) is found


@pytest.mark.parametrize("harm", [b"", b"{", b"[]", b'{"program": 1}'])
def test_a_damaged_memory_is_none(remembered: Workspace, harm: bytes) -> None:
    """It is only a memory: the run takes the long way and writes it again."""
    (path,) = (remembered.folder / ".llmpipe" / "memo").glob("nothing-to-do-*.json")
    path.write_bytes(harm)
    assert not _is_recalled(remembered)
    assert _is_recalled(remembered)


def test_a_memory_with_other_figures_is_none(remembered: Workspace) -> None:
    """What it would tell of the stages was never so."""
    (path,) = (remembered.folder / ".llmpipe" / "memo").glob("nothing-to-do-*.json")
    path.write_bytes(path.read_bytes().replace(b'"status":"cached"', b'"status":"failed"', 1))
    assert not _is_recalled(remembered)


def test_a_broken_spec_is_told_as_ever(remembered: Workspace) -> None:
    """The message comes from the long way."""
    _edit(remembered, "spec.yaml", "kind: command", "kind: comand")
    told = remembered.call("run", "spec.yaml", WORD="one")
    assert told.returncode == 2
    assert "did you mean 'command'?" in told.stderr
    remembered.spec.unlink()
    told = remembered.call("run", "spec.yaml", WORD="one")
    assert (told.returncode, "no such file" in told.stderr) == (2, True)


def test_a_file_that_joins_a_pattern_is_seen(tmp_path: Path) -> None:
    """What matches is as much an input as what is named."""
    workspace = Workspace(tmp_path)
    workspace.write('version: 1\nname: docs\nstages:\n  docs: {kind: ingest, paths: ["./*.md"]}\n')
    (tmp_path / "a.md").write_text("# A\n\nText.\n")
    for name, seen in (("b.txt", False), ("b.md", True)):
        workspace.call("run", "spec.yaml")
        assert "= docs: cached" in workspace.call("run", "spec.yaml").stderr
        (tmp_path / name).write_text("# B\n\nMore text.\n")
        told = workspace.call("run", "spec.yaml", PYTHONPROFILEIMPORTTIME="1")
        assert ("✓ docs: done" in told.stderr) is seen, told.stderr
        assert ("llmpipe.spec.load" in told.stderr) is seen
