"""``freeze`` and ``--keep``: an artifact that stays whatever has changed, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Statuses = Callable[[dict[str, Any]], dict[str, str]]


def edited(space: Any, old: str, new: str) -> None:
    """Change the spec."""
    text = space.spec.read_text()
    assert old in text
    space.write(text.replace(old, new))


def test_a_frozen_stage_stays(workspace: Any, statuses: Statuses) -> None:
    """Neither its own change nor one above it reruns it; what depends on it stays cached, too."""
    workspace.run()
    workspace.trace()
    edited(workspace, "second: {kind", "second: {freeze: true, kind")
    edited(workspace, "sort", "sort -r")
    edited(workspace, "word: one", "word: two")
    plan = workspace.plan()
    assert {name: stage["status"] for name, stage in plan.items()} == {
        "first": "run", "second": "cached", "third": "cached",
    }  # fmt: skip
    assert plan["second"]["kept"] is True
    assert [cause["cause"] for cause in plan["second"]["causes"]] == ["config", "upstream"]
    assert statuses(workspace.run()) == {"first": "done", "second": "cached", "third": "cached"}
    assert workspace.trace() == ["first"]


def test_the_plan_says_that_a_stage_is_kept_and_why_it_would_run(workspace: Any) -> None:
    """In words: kept, although what has changed."""
    workspace.run()
    edited(workspace, "second: {kind", "second: {freeze: true, kind")
    edited(workspace, "sort", "sort -r")
    lines = workspace.call("plan", "spec.yaml").stdout.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines if line.startswith("second")] == [
        "cached, kept as it is"
    ]
    assert lines[2].strip().startswith("although run: echo second >> trace; sort")
    assert lines[-1] == "3 stages: 0 to run, 3 cached"
    shown = workspace.call("plan", "spec.yaml", "second").stdout.splitlines()
    assert shown[0] == "second (command): cached, kept as it is"


def test_thawed_it_runs(workspace: Any) -> None:
    """Without freeze the stage is what its settings say."""
    workspace.run()
    text = workspace.spec.read_text().replace("sort", "sort -r")
    workspace.write(text.replace("second: {kind", "second: {freeze: true, kind"))
    workspace.run()
    workspace.trace()
    workspace.write(text)
    workspace.run()
    assert workspace.trace() == ["second", "third"]


def test_a_frozen_stage_runs_while_there_is_nothing_to_keep(workspace: Any) -> None:
    """Before its first run, when its artifact is lost, and when it is forced."""
    edited(workspace, "second: {kind", "second: {freeze: true, kind")
    result = workspace.run()
    assert workspace.trace() == ["first", "second", "third"]
    edited(workspace, "sort", "sort  ")
    path = Path(result["stages"]["second"]["outputs"]["o"])
    path.parent.chmod(0o755)
    path.unlink()
    workspace.run()
    assert workspace.trace() == ["second"]
    workspace.run("--force", "second")
    assert workspace.trace() == ["second"]


def test_a_frozen_stage_runs_when_it_is_to_make_other_things(workspace: Any) -> None:
    """An output that its artifact does not have cannot be kept."""
    edited(workspace, "second: {kind", "second: {freeze: true, kind")
    workspace.run()
    workspace.trace()
    edited(workspace, "sort ${inputs.i} > ${outputs.o}", "sort ${inputs.i} > ${outputs.p}")
    edited(
        workspace,
        "inputs: {i: first}, outputs: {o: o.txt}",
        "inputs: {i: first}, outputs: {p: p.txt}",
    )
    workspace.run()
    assert workspace.trace() == ["second"]


def test_keep_records_the_artifact_under_its_new_key(workspace: Any, statuses: Statuses) -> None:
    """The next run needs no --keep: the stage is fresh, and so is what depends on it."""
    before = workspace.run()["stages"]["second"]
    workspace.trace()
    edited(workspace, "sort", "sort -r")
    result = workspace.run("--keep", "second")
    kept = result["stages"]["second"]
    assert workspace.trace() == []
    assert set(statuses(result).values()) == {"cached"}
    assert kept["key"] != before["key"]
    assert kept["outputs"] == before["outputs"]
    plan = workspace.plan()
    assert {stage["status"] for stage in plan.values()} == {"cached"}
    assert "kept" not in plan["second"]
    assert plan["second"]["key"] == kept["key"]
    workspace.run("--locked")
    assert workspace.trace() == []


def test_a_chain_of_kept_stages(workspace: Any) -> None:
    """Several are kept at once, each under the key that the one above gives it."""
    workspace.run()
    workspace.trace()
    edited(workspace, "sort", "sort -r")
    edited(workspace, "wc -l", "wc -c")
    edited(workspace, "word: one", "word: two")
    workspace.run("--keep", "first", "--keep", "second", "--keep", "third")
    assert workspace.trace() == []
    workspace.run()
    assert workspace.trace() == []


def test_a_stage_below_one_that_runs_is_kept(workspace: Any) -> None:
    """Its new key is not known before the upper one has run; afterwards it is recorded."""
    workspace.run()
    workspace.trace()
    edited(workspace, "word: one", "word: two")
    workspace.run("--keep", "second")
    assert workspace.trace() == ["first"]
    workspace.run()
    assert workspace.trace() == []


def test_what_cannot_be_kept_is_refused(workspace: Any) -> None:
    """Before it ever ran, or together with --force: it is said before hours are spent."""
    told = workspace.call("run", "spec.yaml", "--keep", "second")
    assert told.returncode == 2
    assert "--keep second: the store has nothing that it made" in told.stderr
    workspace.run()
    told = workspace.call("run", "spec.yaml", "--keep", "second", "--from", "first")
    assert told.returncode == 2
    assert "--keep second: the stage is also to be run again" in told.stderr
    told = workspace.call("run", "spec.yaml", "--keep", "secnod")
    assert "did you mean 'second'?" in told.stderr


def test_keeping_a_sweep_keeps_its_points(workspace: Any) -> None:
    """A family's name keeps every point that there is; a new one is made."""
    workspace.write(
        """\
version: 1
name: sweep
stages:
  fit:
    kind: command
    run: 'echo "fit-$X" >> trace; echo $X > ${outputs.o}'
    outputs: {o: o.txt}
    matrix: {env.X: [a, b]}
"""
    )
    workspace.run()
    workspace.trace()
    edited(workspace, "echo $X >", "echo  $X >")
    edited(workspace, "[a, b]", "[a, b, c]")
    workspace.run("--keep", "fit")
    assert workspace.trace() == ["fit-c"]
    workspace.run()
    assert workspace.trace() == []


def test_what_is_kept_is_of_the_same_profiles(workspace: Any) -> None:
    """Neither freeze nor --keep takes what another choice of profiles made."""
    edited(
        workspace, "params: {word: one}", "params: {word: one}\nprofiles: {p: {params: {word: P}}}"
    )
    edited(workspace, "first:\n", "first:\n    freeze: true\n")
    workspace.run()
    result = workspace.run("--profile", "p")
    assert workspace.trace().count("first") == 2
    assert Path(result["stages"]["second"]["outputs"]["o"]).read_text() == "P\nx\ny\n"
    workspace.run()
    assert workspace.trace() == []
    edited(workspace, "sort ", "sort -r ")
    both = [workspace.run("--keep", "second", *p) for p in ([], ["--profile", "p"])]
    texts = [Path(r["stages"]["second"]["outputs"]["o"]).read_text() for r in both]
    assert texts == ["one\nx\ny\n", "P\nx\ny\n"]
