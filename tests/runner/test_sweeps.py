"""Sweeps for real: what an edited, added or removed point reruns, who wins, and how many at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SWEEP = """\
version: 1
name: sweep
stages:
  fit:
    kind: command
    run: 'echo "fit-$X" >> trace; echo "{\\"loss\\": $X}" > ${outputs.m}; echo "weights $X" > ${outputs.w}'
    outputs: {w: w.bin, m: m.json}
    matrix: {env.X: ["3", "1", "2"]}
  dev: {kind: command, run: 'echo dev >> trace; cat ${inputs.m} > ${outputs.m}', inputs: {m: fit.m}, outputs: {m: m.json}}
  best: {kind: select, of: fit.w, by: dev.loss, mode: min}
  use: {kind: command, run: 'echo use >> trace; cat ${inputs.w} > ${outputs.o}', inputs: {w: best}, outputs: {o: o.txt}}
"""


@pytest.fixture
def sweep(workspace: Any) -> Any:
    """A workspace whose spec sweeps over three points and goes on with the best."""
    workspace.write(SWEEP)
    return workspace


def edited(space: Any, old: str, new: str) -> None:
    """Change the spec."""
    text = space.spec.read_text()
    assert old in text
    space.write(text.replace(old, new))


def winner(result: dict[str, Any]) -> str:
    """Return the text of what depends on the winner."""
    return Path(result["stages"]["use"]["outputs"]["o"]).read_text().strip()


def test_the_best_point_goes_on(sweep: Any) -> None:
    """Every point runs once, the least metric wins, and the choice is on record."""
    result = sweep.run()
    assert sorted(sweep.trace()) == ["dev", "dev", "dev", "fit-1", "fit-2", "fit-3", "use"]
    assert winner(result) == "weights 1"
    assert result["stages"]["best"]["metrics"] == {
        "point": 'env.X="1"',
        "value": 1.0,
        "by": "dev.loss",
        "points": {'env.X="3"': 3.0, 'env.X="1"': 1.0, 'env.X="2"': 2.0},
        "lost": [],
        "outside": {},
    }
    edited(sweep, "mode: min", "mode: max")
    assert winner(sweep.run()) == "weights 3"
    assert sweep.trace() == ["use"]


def test_editing_a_point_reruns_that_point(sweep: Any) -> None:
    """Not the other points, and below ``select`` nothing while the winner stays."""
    sweep.run()
    sweep.trace()
    edited(sweep, '"2"', '"5"')
    sweep.run()
    assert sweep.trace() == ["fit-5", "dev"]
    edited(sweep, '"5"', '"2"')
    sweep.run()
    assert sweep.trace() == []


def test_adding_and_removing_points_reruns_none_of_the_others(sweep: Any) -> None:
    """The order of the points and their number are nothing to those that are there."""
    sweep.run()
    sweep.trace()
    edited(sweep, '["3", "1", "2"]', '["2", "4", "3", "1"]')
    sweep.run()
    assert sweep.trace() == ["fit-4", "dev"]
    edited(sweep, '["2", "4", "3", "1"]', '["2", "3"]')
    told = sweep.call("plan", "spec.yaml").stdout
    assert 'because of[env.X="1"]: a reference → nothing' in told
    assert winner(sweep.run()) == "weights 2"
    assert sweep.trace() == ["use"]


def test_a_change_of_the_whole_stage_reruns_every_point(sweep: Any) -> None:
    """What the points share is part of each."""
    sweep.run()
    sweep.trace()
    edited(sweep, "weights $X", "weighty $X")
    assert winner(sweep.run()) == "weighty 1"
    assert sorted(sweep.trace()) == ["fit-1", "fit-2", "fit-3", "use"]


def test_plan_shows_every_point_and_a_family_by_its_name(sweep: Any) -> None:
    """``plan fit`` and ``run --only fit`` mean the stage at all its points; a point has its name."""
    points = ['fit@env.X="3"', 'fit@env.X="1"', 'fit@env.X="2"']
    assert list(sweep.plan()) == [
        *points,
        *(p.replace("fit", "dev") for p in points),
        "best",
        "use",
    ]
    for name, expected in (("fit", points), ('fit@env.X="1"', ['fit@env.X="1"'])):
        found = json.loads(sweep.call("plan", "spec.yaml", name, "--json").stdout)
        assert list(found["stages"]) == expected
    shown = sweep.call("plan", "spec.yaml", "fit").stdout
    assert all(f"{point} (command): run" in shown for point in points)
    result = sweep.run("--only", 'dev@env.X="1"')
    assert sorted(sweep.trace()) == ["dev", "fit-1"]
    assert result["stages"]["best"]["status"] == "skipped"
    wrong = sweep.call("get", "spec.yaml", "fit.w", "x")
    assert wrong.returncode == 2
    assert "'fit' is made at several points: say which" in wrong.stderr


def test_below_a_large_sweep_the_plan_stays_short(sweep: Any) -> None:
    """Of a select stage's many causes the plan shows some and says how to see the rest."""
    edited(sweep, '["3", "1", "2"]', str([str(i) for i in range(20)]))
    told = sweep.call("plan", "spec.yaml")
    lines = told.stdout.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("best "))
    assert lines[at + 7].strip() == "and for 34 more: llmpipe plan SPEC best lists them"
    assert len(sweep.call("plan", "spec.yaml", "best").stdout.splitlines()) > 40


def test_ties_go_to_the_first_point(sweep: Any) -> None:
    """In the order of the matrix, for min and for max."""
    edited(sweep, '\\"loss\\": $X', '\\"loss\\": 7')
    assert winner(sweep.run()) == "weights 3"
    edited(sweep, "mode: min", "mode: max")
    assert winner(sweep.run()) == "weights 3"


def test_a_missing_metric_is_named_with_what_there_is(sweep: Any) -> None:
    """The message names the point, and the metric that was meant."""
    edited(sweep, "by: dev.loss", "by: dev.los")
    error = sweep.run(code=1)["stages"]["best"]["error"]
    assert error["message"] == "the metrics of dev@env.X=\"3\" have no metric 'los'"
    assert error["hint"] == "did you mean 'loss'?"


def test_a_point_that_diverged_cannot_win(sweep: Any) -> None:
    """NaN and infinity are not metrics to choose by; the run says which points they were."""
    edited(sweep, '["3", "1", "2"]', '["3", NaN, "2", "-Infinity"]')
    told = sweep.call("run", "spec.yaml")
    assert told.returncode == 0
    lost = 'env.X="NaN", env.X="-Infinity"'
    assert f"! best: not considered, because dev.loss is not finite: {lost}" in told.stderr
    result = sweep.run()
    assert winner(result) == "weights 2"
    choice = result["stages"]["best"]["metrics"]
    assert (list(choice["points"]), choice["lost"]) == (
        ['env.X="3"', 'env.X="2"'],
        ['env.X="NaN"', 'env.X="-Infinity"'],
    )


def test_where_every_point_diverged_there_is_no_best(sweep: Any) -> None:
    """That is a failure, not a choice at random."""
    edited(sweep, '["3", "1", "2"]', "[NaN, Infinity]")
    error = sweep.run(code=1)["stages"]["best"]["error"]
    assert error["message"] == "the metric dev.loss is not finite at any point"


TIMED = """\
version: 1
name: timed
stages:
  many:
    kind: command
    run: 'echo "+ $X $(date +%s.%N)" >> times; sleep 0.4; echo "- $X $(date +%s.%N)" >> times; echo > ${outputs.o}'
    outputs: {o: o.txt}
    matrix: {env.X: [a, b, c, d, e], max_parallel: LIMIT}
  low: {kind: command, run: 'echo "+ low $(date +%s.%N)" >> times; sleep 0.4; echo "- low $(date +%s.%N)" >> times; echo > ${outputs.o}', outputs: {o: o.txt}}
  last: {kind: command, run: 'cat ${inputs.i} > ${outputs.o}', inputs: {i: many}, outputs: {o: o.txt}}
"""


def intervals(folder: Path) -> dict[str, tuple[float, float]]:
    """Return when each stage began and ended, as it wrote down itself."""
    lines = [line.split() for line in (folder / "times").read_text().splitlines()]
    began = {name: float(at) for sign, name, at in lines if sign == "+"}
    ended = {name: float(at) for sign, name, at in lines if sign == "-"}
    return {name: (began[name], ended[name]) for name in began}


def most_at_once(found: list[tuple[float, float]]) -> int:
    """Return how many intervals overlap at most."""
    return max(sum(began <= at < ended for began, ended in found) for at, _ in found)


@pytest.mark.usefixtures("all_cores")
def test_max_parallel_limits_the_points_and_nothing_else(workspace: Any) -> None:
    """One point at a time, while a stage of less weight takes the free half of the machine."""
    workspace.write(TIMED.replace("LIMIT", "1"))
    workspace.run("-j2")
    found = intervals(workspace.folder)
    low = found.pop("low")
    points = sorted(found.values())
    assert most_at_once(points) == 1
    assert low[0] < points[1][1], "it waited for points that were not allowed to run anyway"


@pytest.mark.usefixtures("all_cores")
def test_without_a_limit_points_run_at_once(workspace: Any) -> None:
    """As many as there are CPU threads and jobs."""
    workspace.write(TIMED.replace(", max_parallel: LIMIT", ""))
    workspace.run("-j2")
    assert most_at_once(list(intervals(workspace.folder).values())) == 2


def test_an_artifact_of_a_folder_is_selected_whole(sweep: Any) -> None:
    """The winner may be a folder; it is the same object in the store, not a copy."""
    edited(
        sweep, 'echo "weights $X" > ${outputs.w}', "mkdir ${outputs.w}; echo $X > ${outputs.w}/w"
    )
    edited(sweep, "w: w.bin", "w: w")
    edited(sweep, "cat ${inputs.w}", "cat ${inputs.w}/w")
    result = sweep.run()
    assert winner(result) == "1"
    stages = result["stages"]
    assert stages["best"]["outputs"]["winner"] == stages['fit@env.X="1"']["outputs"]["w"]
    choice = json.loads(Path(stages["best"]["outputs"]["choice"]).read_text())
    assert choice["point"] == 'env.X="1"'
