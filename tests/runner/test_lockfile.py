"""The lock file: what is in it, when it is written, and all that ``run --locked`` refuses."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

SPEC = """\
version: 1
name: locked
params: {word: one}
profiles:
  loud: {params: {word: LOUD}}
stages:
  raw: {kind: command, run: "cat ${inputs.src} > ${outputs.o}", inputs: {src: ./a.jsonl}, outputs: {o: o.jsonl}}
  rows: {kind: format, data: raw, to: messages}
  tail: {kind: command, run: "echo ${params.word} > ${outputs.o}; cat ${inputs.i} >> ${outputs.o}", inputs: {i: rows}, outputs: {o: o.txt}}
"""


def row(text: str) -> str:
    """Return a row of data as one line."""
    return json.dumps({"instruction": text, "output": "an answer"}) + "\n"


@pytest.fixture
def space(workspace: Any) -> Any:
    """A workspace whose middle stage is of an exact kind."""
    workspace.write(SPEC)
    (workspace.folder / "a.jsonl").write_text(row("q"))
    return workspace


def lock_of(space: Any) -> Path:
    """Return the lock file."""
    path: Path = space.folder / "locked.lock.yaml"
    return path


def change(space: Any, edit: Callable[[dict[str, Any]], object], profile: str = "default") -> None:
    """Edit the stages of a section of the lock file, as a person or another machine might."""
    path = lock_of(space)
    document = yaml.safe_load(path.read_text())
    edit(document["profiles"][profile]["stages"])
    head = path.read_text().splitlines(keepends=True)[:2]
    path.write_text("".join(head) + yaml.safe_dump(document))


def refused(space: Any, *arguments: str) -> str:
    """Run with --locked and return the message that it ends with, before anything ran."""
    runs = sorted((space.folder / ".llmpipe" / "runs").iterdir())
    result = space.call("run", "spec.yaml", "--locked", *arguments)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert sorted((space.folder / ".llmpipe" / "runs").iterdir()) == runs
    return str(result.stderr)


def test_what_is_locked(space: Any) -> None:
    """Digests of inputs and artifacts, versions, keys: sorted, under a version and the profiles."""
    result = space.run()
    text = lock_of(space).read_text()
    document = yaml.safe_load(text)
    assert (document["version"], document["name"]) == (2, "locked")
    section = document["profiles"]["default"]
    assert list(section["stages"]) == ["raw", "rows", "tail"]
    raw = section["stages"]["raw"]
    assert raw["key"] == result["stages"]["raw"]["key"]
    assert re.fullmatch(r"[0-9a-f]{64}", raw["outputs"]["o"]["digest"])
    assert raw["key_inputs"]["inputs"]["src"]["digest"] == raw["outputs"]["o"]["digest"]
    assert "commit it beside the spec" in text.splitlines()[0]
    assert str(space.folder) not in text


def test_it_is_the_same_bytes_after_every_run(space: Any) -> None:
    """A no-op run does not touch it; a run in a fresh store on a fresh disk writes the same."""
    space.run()
    first, touched = lock_of(space).read_bytes(), lock_of(space).stat().st_mtime_ns
    space.run()
    assert lock_of(space).stat().st_mtime_ns == touched
    lock_of(space).unlink()
    shutil.rmtree(space.folder / ".llmpipe")
    space.run()
    assert lock_of(space).read_bytes() == first


def test_profiles_have_sections_of_their_own(space: Any) -> None:
    """Neither a run with a profile nor one without touches the other's section."""
    space.run()
    first = yaml.safe_load(lock_of(space).read_text())["profiles"]["default"]
    space.run("--profile", "loud")
    profiles = yaml.safe_load(lock_of(space).read_text())["profiles"]
    assert list(profiles) == ["default", "loud"]
    assert profiles["default"] == first
    assert profiles["loud"]["stages"]["tail"]["key"] != first["stages"]["tail"]["key"]
    both = lock_of(space).read_bytes()
    space.run()
    space.run("--locked", "--profile", "loud")
    assert lock_of(space).read_bytes() == both


def test_settings_of_the_command_line_are_not_locked(space: Any) -> None:
    """--set is for trying things out."""
    space.run("--set", "params.word=two")
    assert not lock_of(space).exists()
    space.run()
    before = lock_of(space).read_bytes()
    space.run("--set", "params.word=two")
    assert lock_of(space).read_bytes() == before
    assert "tail: run: echo one" in refused(space, "--set", "params.word=two")


def test_a_failed_run_locks_what_is_done_and_keeps_the_rest(space: Any) -> None:
    """What was locked of a stage that did not get its turn stays."""
    space.run()
    before = yaml.safe_load(lock_of(space).read_text())["profiles"]["default"]["stages"]
    (space.folder / "a.jsonl").write_text(row("other"))
    space.write(SPEC.replace("echo ${params.word}", "false; exit 1; echo ${params.word}"))
    space.run(code=1)
    after = yaml.safe_load(lock_of(space).read_text())["profiles"]["default"]["stages"]
    assert after["raw"]["key"] != before["raw"]["key"]
    assert after["tail"] == before["tail"]


def test_locked_runs_what_is_as_locked(space: Any) -> None:
    """In the same store, and in an empty one on a machine that has only the files."""
    space.run()
    before = lock_of(space).read_bytes()
    assert {s["status"] for s in space.run("--locked")["stages"].values()} == {"cached"}
    shutil.rmtree(space.folder / ".llmpipe")
    assert {s["status"] for s in space.run("--locked")["stages"].values()} == {"done"}
    assert lock_of(space).read_bytes() == before


def test_no_lock_is_said(space: Any) -> None:
    """No file at all, and none for these profiles, are two things to know."""
    (space.folder / ".llmpipe" / "runs").mkdir(parents=True)
    assert "there is no lock file" in refused(space)
    space.run()
    message = refused(space, "--profile", "loud")
    assert "locked.lock.yaml has no section for the profiles 'loud'" in message
    assert "run without --locked first" in message


def test_a_changed_setting_is_refused(space: Any) -> None:
    """By its field, from what to what."""
    space.run()
    space.write(SPEC.replace("word: one", "word: two"))
    message = refused(space)
    assert "not as in locked.lock.yaml: tail: run: echo one" in message
    assert "undo the change, or run without --locked and commit the new lock" in message
    assert message.count("not as in") == 1


def test_a_changed_input_is_refused_once(space: Any) -> None:
    """The file is named; that all below it changes with it goes without saying."""
    space.run()
    (space.folder / "a.jsonl").write_text(row("other"))
    assert refused(space).count("not as in") == 1
    assert "raw: ./a.jsonl changed" in refused(space)
    space.run()  # also when a plain run has made it all: what is cached here is not what is locked
    (space.folder / "a.jsonl").write_text(row("q"))
    assert "raw: ./a.jsonl changed" in refused(space)


def test_other_versions_are_refused(space: Any) -> None:
    """Of a tool that shapes the result, and of llmpipe's own way to make a kind of stage."""
    space.run()
    change(space, lambda s: s["rows"]["key_inputs"]["tools"].update(msgspec="0.0.1"))
    assert space.run("--locked")["status"] == "done"  # format does not depend on it any more
    change(space, lambda s: s["rows"]["key_inputs"].update(version=0))
    assert "rows: this llmpipe has a newer version of the stage kind" in refused(space)


def test_an_upgraded_tool_is_refused(space: Any) -> None:
    """The version that a stage was made with is part of the lock."""
    (space.folder / "base").mkdir()
    (space.folder / "base" / "config.json").write_text("{}")
    sft = "  sft: {kind: train, base_model: ./base, data: rows, axolotl: {adapter: lora}}\n"
    space.run()
    space.write(SPEC + sft)
    planned = json.loads(space.call("plan", "spec.yaml", "sft", "--json").stdout)["stages"]["sft"]
    key_inputs = yaml.safe_load(
        space.call("plan", "spec.yaml", "sft").stdout.partition("made of:\n")[2]
    )
    key_inputs["tools"]["peft"] = "0.0.1"
    locked = {"key": planned["key"], "key_inputs": key_inputs, "outputs": {}}
    change(space, lambda stages: stages.update(sft=locked))
    message = refused(space)
    assert re.search(r"sft: peft: 0\.0\.1 → \d", message)
    assert message.count("not as in") == 1


def test_a_stage_too_many_and_one_too_few(space: Any) -> None:
    """A stage that is not locked, and a locked one that is gone, are named."""
    space.run()
    more = '  more: {kind: command, run: "echo > ${outputs.o}", outputs: {o: o.txt}}\n'
    space.write(SPEC + more)
    assert "more is not in it" in refused(space)
    space.run()
    space.write(SPEC)
    assert "more is in it, but not in the spec" in refused(space)


def test_a_rewired_reference_is_refused(space: Any) -> None:
    """The same fields and the same files, but another stage to read from."""
    twin = "  twin: {kind: format, data: raw, to: alpaca}\n"
    space.write(SPEC + twin)
    space.run()
    space.write(SPEC.replace("inputs: {i: rows}", "inputs: {i: twin}") + twin)
    assert "not as in locked.lock.yaml: tail: it is not made of twin" in refused(space)


def test_an_exact_artifact_must_be_the_same(space: Any) -> None:
    """A kind that promises equal bytes fails where it makes others of the same ingredients."""
    space.run()
    change(space, lambda stages: stages["rows"]["outputs"]["train"].update(digest="0" * 64))
    change(space, lambda s: s["tail"]["key_inputs"]["inputs"]["i"].update(digest="0" * 64))
    result = space.run("--locked", code=1)
    error = result["stages"]["rows"]["error"]
    assert re.match(r"its output 'train' is [0-9a-f]{12}; 0{12} is locked", error["message"])
    assert result["stages"]["tail"]["status"] == "blocked"


def test_what_an_outside_program_makes_may_differ(space: Any) -> None:
    """A command promises nothing: what is made of its other output is made, and is not drift."""
    space.write(SPEC.replace("cat ${inputs.src}", "sed s/q/$RANDOM_WORD/ ${inputs.src}"))
    assert space.run(RANDOM_WORD="first")["status"] == "done"
    shutil.rmtree(space.folder / ".llmpipe")
    result = space.run("--locked", RANDOM_WORD="second")
    assert {stage["status"] for stage in result["stages"].values()} == {"done"}


def test_a_lock_of_version_1_still_locks(space: Any) -> None:
    """Nothing runs again for the name's sake; the next run that may write it writes version 2."""
    space.run()
    lock, now = lock_of(space), lock_of(space).read_text()
    old = now.replace("key_inputs:", "made_of:").replace("version: 2\n", "version: 1\n")
    assert old != now
    lock.write_text(old)
    assert {s["status"] for s in space.run("--locked")["stages"].values()} == {"cached"}
    assert lock.read_text() == old
    shutil.rmtree(space.folder / ".llmpipe")
    assert space.run("--locked")["status"] == "done"
    space.run()
    assert lock.read_text() == now


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profiles: [", "it is not valid YAML"),
        ("- 1\n- 2\n", "it is not a lock file"),
        ("version: 1\n", "it is not a lock file"),
        ("version: 1\nname: x\nprofiles: {default: {}}\n", "it is not a lock file"),
        ("version: 1\nname: x\nprofiles: {default: 3}\n", "it is not a lock file"),
        ("version: 2\nname: x\nprofiles: {default: {}}\n", "it is not a lock file"),
        ("version: 3\nname: x\nsections: {}\n", "of version 3; this llmpipe reads 2"),
        ("version: 0\nname: x\nprofiles: {}\n", "of version 0; this llmpipe reads 2"),
        ("a: !!python/object:os.x {}\n", "it is not valid YAML"),
        (b"name: M\xe1laga\n", "it is not UTF-8 text"),
    ],
)
def test_a_lock_that_cannot_be_understood(space: Any, text: str | bytes, message: str) -> None:
    """It is refused by name before anything runs, with --locked and without; nothing is lost."""
    lock_of(space).write_bytes(text if isinstance(text, bytes) else text.encode())
    for arguments in ([], ["--locked"]):
        result = space.call("run", "spec.yaml", *arguments)
        assert result.returncode == 2, result.stderr
        assert "locked.lock.yaml" in result.stderr
        assert message in result.stderr
        assert "Traceback" not in result.stderr
        assert not (space.folder / ".llmpipe" / "runs").exists()


def test_a_newer_lock_is_for_a_newer_llmpipe(space: Any) -> None:
    """There is nothing to restore: the hint says whose it is."""
    lock_of(space).write_text("version: 3\nwhatever: true\n")
    told = space.call("run", "spec.yaml").stderr
    assert "use the newer llmpipe that wrote it" in told
    assert "restore" not in told


def test_a_merge_conflict_is_said(space: Any) -> None:
    """By its line, before anything runs, with the way out; after it the lock is whole again."""
    space.run()
    lines = lock_of(space).read_text().splitlines(keepends=True)
    ours, theirs = lines[1], lines[1].replace("below: ", "below: 0")
    conflict = [f"<<<<<<< HEAD\n{ours}=======\n{theirs}>>>>>>> branch\n"]
    lock_of(space).write_text("".join([lines[0], *conflict, *lines[2:]]))
    message = refused(space)
    assert "locked.lock.yaml:2:1: a merge conflict is left in the lock file" in message
    assert "keep either side" in message
    space.write(SPEC.replace("word: one", "word: two"))
    assert space.call("run", "spec.yaml").returncode == 2
    lock_of(space).write_text("".join([lines[0], theirs, *lines[2:]]))
    space.run()
    space.run("--locked")


def test_an_edited_lock_is_written_anew(space: Any) -> None:
    """A hand that changed the body and not the head is noticed by the next plain run."""
    space.run()
    before = lock_of(space).read_bytes()
    change(space, lambda stages: stages.pop("tail"))
    assert "tail is not in it" in refused(space)
    space.run()
    assert lock_of(space).read_bytes() == before


def test_a_lock_from_elsewhere_explains_the_plan(space: Any) -> None:
    """On a machine that never ran the spec, the plan compares with what the lock says."""
    space.run()
    shutil.rmtree(space.folder / ".llmpipe")
    space.write(SPEC.replace("word: one", "word: two"))
    (space.folder / "a.jsonl").write_text(row("other"))
    plan = space.plan()
    assert plan["raw"]["causes"] == [{"cause": "file", "path": "./a.jsonl"}]
    causes = plan["tail"]["causes"]
    assert [(c["cause"], c.get("field")) for c in causes] == [
        ("config", "stages.tail.run"),
        ("upstream", None),
    ]
    space.write(SPEC)
    (space.folder / "a.jsonl").write_text(row("q"))
    assert space.plan()["raw"]["causes"] == [{"cause": "missing", "output": "all"}]


def test_a_frozen_stage_is_as_locked(space: Any) -> None:
    """Where its artifact is the locked one its changed settings are not drift; elsewhere they are."""
    space.run()
    frozen = SPEC.replace("kind: format,", "kind: format, freeze: true,")
    space.write(frozen.replace("to: messages", "to: alpaca"))
    space.run()
    assert {s["status"] for s in space.run("--locked")["stages"].values()} == {"cached"}
    shutil.rmtree(space.folder / ".llmpipe")
    (space.folder / ".llmpipe" / "runs").mkdir(parents=True)
    assert "rows: to: messages → alpaca" in refused(space)


@pytest.mark.parametrize("second", ["other.yaml", "spec.yml"])
def test_a_lock_is_of_one_spec(space: Any, second: str) -> None:
    """Two specs of one name in a folder would write each other's lock: a run of the second, which
    would, is refused; all else works for both, and plan warns."""
    space.run()
    before = lock_of(space).read_bytes()
    assert yaml.safe_load(before)["spec"] == "spec.yaml"
    other = space.folder / second
    other.write_text(SPEC.replace("word: one", "word: two"))
    assert space.call("validate", second).returncode == 0
    for arguments in (["plan"], ["run", "--dry-run"]):
        told = space.call(*arguments, second)
        assert told.returncode == 0
        assert "locked.lock.yaml: this is the lock file of spec.yaml" in told.stderr
    assert space.call("run", second, "--set", "params.word=three").returncode == 0
    taken = space.call("get", second, "rows", "mine.jsonl", "--run", "last")
    assert taken.returncode == 0, taken.stderr
    other.write_text(SPEC)
    assert space.call("get", second, "rows", "same.jsonl").returncode == 0
    assert space.call("get", "spec.yaml", "rows", "first.jsonl").returncode == 0
    other.write_text(SPEC.replace("word: one", "word: two"))
    for arguments in (["run"], ["run", "--locked"]):
        told = space.call(*arguments, second)
        assert told.returncode == 2
        assert "locked.lock.yaml: this is the lock file of spec.yaml" in told.stderr
        assert "is named 'locked' as well" in told.stderr
        assert f"change `name:` in {second} or spec.yaml" in told.stderr
        assert "if spec.yaml was a trial, delete locked.lock.yaml" in told.stderr
        assert lock_of(space).read_bytes() == before
    other.write_text(other.read_text().replace("name: locked", "name: other"))
    assert space.call("run", second).returncode == 0
    assert lock_of(space).read_bytes() == before


def test_a_first_run_that_comes_to_nothing_claims_no_name(space: Any) -> None:
    """A mistyped copy of a spec leaves no lock file that would stand in the way of the good one."""
    (space.folder / "typo.yaml").write_text(SPEC.replace("cat ${inputs.src}", "ls no-such-file"))
    assert space.call("run", "typo.yaml").returncode == 1
    assert not lock_of(space).exists()
    space.run()
    assert lock_of(space).exists()


def test_a_lock_that_comes_to_be_meanwhile_is_no_one_elses(space: Any) -> None:
    """Two first runs of one name at once: the one that ends last leaves the other's lock alone."""
    run = f"{sys.executable} -m llmpipe run spec.yaml > ${{outputs.o}}"
    stage = {"kind": "command", "run": run, "outputs": {"o": "o.txt"}}
    spec = {"version": 1, "name": "locked", "stages": {"slow": stage}}
    (space.folder / "spec.yml").write_text(yaml.safe_dump(spec))
    told = space.call("run", "spec.yml")
    assert told.returncode == 2
    assert "locked.lock.yaml: this is the lock file of spec.yaml" in told.stderr
    assert yaml.safe_load(lock_of(space).read_text())["spec"] == "spec.yaml"


def test_a_lock_goes_with_a_spec_that_is_renamed(space: Any) -> None:
    """Nothing has drifted; the next plain run writes the new name."""
    space.run()
    space.spec.rename(space.folder / "renamed.yaml")
    for arguments in (["--locked"], []):
        assert space.call("run", "renamed.yaml", *arguments).returncode == 0
    assert yaml.safe_load(lock_of(space).read_text())["spec"] == "renamed.yaml"


def test_a_lock_that_names_no_spec_is_taken(space: Any) -> None:
    """Early ones did not say whose they are."""
    space.run()
    before = lock_of(space).read_bytes()
    document = yaml.safe_load(before)
    del document["spec"]
    lock_of(space).write_text(yaml.safe_dump(document))
    space.run("--locked")
    space.run()
    assert lock_of(space).read_bytes() == before
