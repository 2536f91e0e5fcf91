"""`runs list`, `show` and `compare`, over runs that ended well, failed, or were killed."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from processes import kill, run_processes

SPEC = """\
version: 1
name: sweep
params: {top: "3"}
stages:
  rows: {kind: format, data: ./rows.jsonl, to: messages}
  fit:
    kind: command
    run: 'echo "{\\"loss\\": $X}" > ${outputs.m}; cat ${inputs.d} > ${outputs.w}'
    inputs: {d: rows}
    outputs: {w: w.jsonl, m: m.json}
    matrix: {env.X: ["1", "${params.top}"]}
  dev: {kind: command, run: "cp ${inputs.m} ${outputs.m}", inputs: {m: fit.m}, outputs: {m: m.json}}
  best: {kind: select, of: fit.w, by: dev.loss, mode: max}
"""


def rows(count: int) -> str:
    """Return rows of data."""
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    return "".join(json.dumps({**row, "n": i}) + "\n" for i in range(count))


@pytest.fixture
def sweep(workspace: Any) -> Any:
    """A folder with a sweep over data, and the names of three runs: as it is, with another
    parameter, with other data too."""
    workspace.write(SPEC)
    (workspace.folder / "rows.jsonl").write_text(rows(4))
    workspace.names = [workspace.run()["run"], workspace.run("--set", "params.top='7'")["run"]]
    (workspace.folder / "rows.jsonl").write_text(rows(6))
    workspace.names.append(workspace.run("--set", "params.top='7'")["run"])
    return workspace


def runs(workspace: Any, *arguments: str, code: int = 0) -> Any:
    """Call runs; return its data, or its error."""
    result = workspace.call("runs", *arguments, *([] if code else ["--json"]))
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr if code else json.loads(result.stdout)


def test_two_runs_side_by_side(sweep: Any) -> None:
    """What was set, the metrics and the winner stand there; data that is the same does not."""
    one, two, _ = sweep.names
    found = runs(sweep, "compare", one, two)
    assert found["runs"] == [one, two]
    assert found["config"]["params.top"] == ["3", "7"]
    assert found["data"] == {}
    assert found["metrics"]["rows.in"] == [4, 4]
    assert found["metrics"]["best.value"] == [3.0, 7.0]
    assert found["metrics"]["best.point"] == ['env.X="3"', 'env.X="7"']
    assert found["seconds"]["rows"][0] > 0
    assert found["seconds"]["rows"][1] is None
    text = sweep.call("runs", "compare", one, two).stdout
    assert re.search(rf"settings that differ:\n +{one} +{two}\n", text)
    assert re.search(r"\n  params\.top +3 +7\n", text)
    assert re.search(rf"\nmetrics:\n +{one} +{two} +change from {one}\n", text)
    assert re.search(r"\n  best\.value +3 +7 +\+4 \(\+133 %\)\n", text)
    assert text.startswith(f"{one}: done, as the spec is\n{two}: done, with --set 'params.top=")
    assert "inputs that differ" not in text


def test_changed_data_is_named_by_its_input(sweep: Any) -> None:
    """A data file with other bytes is told with both digests, and nothing that follows from it."""
    _, two, three = sweep.names
    found = runs(sweep, "compare")  # the last two
    assert found["runs"] == [two, three]
    assert found["config"] == {}
    assert list(found["data"]) == ["rows.data"]
    assert len(set(found["data"]["rows.data"])) == 2
    assert all(re.fullmatch("[0-9a-f]{64}", text) for text in found["data"]["rows.data"])
    assert found["metrics"]["rows.in"] == [4, 6]


def test_three_runs_and_more(sweep: Any) -> None:
    """Three are columns; more are a line each, as many as asked for."""
    one, two, three = sweep.names
    found = runs(sweep, "compare", "--last", "3")
    assert found["runs"] == [one, two, three]
    assert found["metrics"]["rows.in"] == [4, 4, 6]
    only = runs(sweep, "compare", "--last", "3", "--only", "best.", "--only", "params")
    assert only["config"] == {"params.top": ["3", "7", "7"]}
    assert only["metrics"]["best.value"] == [3.0, 7.0, 7.0]
    assert {name.partition(".")[0] for name in only["metrics"]} == {"best"}
    fourth = sweep.run("--set", "params.top='9'")["run"]
    text = sweep.call("runs", "compare", "--last", "9").stdout
    metrics = text.partition("metrics:\n")[2].partition("seconds:")[0].splitlines()
    heads, *lines = (line.split() for line in metrics)
    assert [line[0] for line in lines] == [one, two, three, fourth]
    column = heads.index("best.value")
    assert [line[column + 1] for line in lines] == ["3", "7", "7", "9"]


def test_what_is_equal_is_folded(sweep: Any) -> None:
    """Figures that do not differ are counted, and shown when asked for."""
    one, two, _ = sweep.names
    text = sweep.call("runs", "compare", one, two).stdout
    assert "rows.in" not in text
    assert re.search(r"\n\d+ metrics are equal; --all shows them\n$", text)
    text = sweep.call("runs", "compare", one, two, "--all").stdout
    assert re.search(r"\n  rows\.in +4 +4\n", text)
    assert text.index("best.value") < text.index("rows.in")
    assert "are equal" not in text
    changes = runs(sweep, "compare", one, two)["changes"]["metrics"]
    assert (changes["best.value"], changes["rows.in"]) == (4.0, 0.0)


def test_a_comparison_as_a_page(sweep: Any) -> None:
    """One file with the same in it: what differs with its change, what is equal folded."""
    one, two, _ = sweep.names
    told = sweep.call("runs", "compare", one, two, "--html", "new/page.html")
    assert told.returncode == 0, told.stderr
    assert told.stdout == "new/page.html\n"
    page = (sweep.folder / "new" / "page.html").read_text()
    assert "+4 (+133 %)" in page
    assert f"change from {one}" in page
    assert page.index("best.value") < page.index("<details>") < page.index("rows.in")
    refused = sweep.call("runs", "compare", one, two, "--html", "new")
    assert refused.returncode == 2
    assert "--html: new is a folder" in refused.stderr


def test_a_failed_run_is_compared_only_when_it_is_named(workspace: Any) -> None:
    """By default the last runs that are done are meant; which were passed over is said."""
    good = workspace.run()["run"]
    again = workspace.run("--set", "params.word=two")["run"]
    bad = workspace.run("--set", "stages.third.run='exit 3'", code=1)["run"]
    told = workspace.call("runs", "compare")
    assert told.stdout.startswith(f"{good}: done")
    assert f"skipped: {bad} (failed); name a run to compare it" in told.stderr
    assert runs(workspace, "compare")["runs"] == [good, again]
    assert runs(workspace, "compare", good, bad)["runs"] == [good, bad]


def test_a_run_is_named_by_its_beginning(sweep: Any) -> None:
    """As much of a name as tells it from the others is enough; else all that fit are listed."""
    one, two, three = sweep.names
    assert runs(sweep, "show", one[:-1])["run"] == one
    assert runs(sweep, "show")["run"] == three
    error = runs(sweep, "show", "20", code=2)
    assert "'20' matches several runs" in error
    assert all(name in error for name in (one, two, three))


def test_mistakes_end_in_two(sweep: Any) -> None:
    """A name that is none is suggested; too few or too many runs are said."""
    one = sweep.names[0]
    wrong = one[:-1] + ("x" if one[-1] != "x" else "y")
    assert f"there is no run {wrong!r}" in runs(sweep, "show", wrong, code=2)
    assert "did you mean '" in runs(sweep, "compare", one, wrong, code=2)
    assert "llmpipe runs lists them" in runs(sweep, "show", "nonsense", code=2)
    assert "at least two runs are needed" in runs(sweep, "compare", one, code=2)
    assert "--last requires compare" in runs(sweep, "list", "--last", "2", code=2)
    assert "runs list takes no runs" in runs(sweep, "list", one, code=2)
    assert "runs show takes one run" in runs(sweep, "show", one, one, code=2)


def test_nothing_has_run_yet(workspace: Any) -> None:
    """Without runs, and without a store, the list is empty and nothing is made."""
    assert runs(workspace, "list") == []
    assert workspace.call("runs").stdout == "nothing has run yet\n"
    assert "nothing has run yet" in runs(workspace, "show", code=2)
    assert "at least two runs" in runs(workspace, "compare", code=2)
    assert not (workspace.folder / ".llmpipe").exists()


def test_a_killed_run_is_listed_as_unfinished(workspace: Any) -> None:
    """It says what had ended; it cannot be compared, and is not taken for the last run."""
    ended = workspace.run()["run"]
    workspace.write(
        workspace.spec.read_text()
        + '  slow: {kind: command, run: "touch begun; sleep 30; echo x > ${outputs.o}", inputs: {i: third}, outputs: {o: o.txt}}\n'
    )
    process = workspace.start("run", "spec.yaml", "--set", "params.word=two")
    deadline = time.monotonic() + 30
    while not (workspace.folder / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    listed = runs(workspace, "list")
    assert [(run["status"], run["ended"] is None) for run in listed] == [
        ("done", False), ("unfinished", True),
    ]  # fmt: skip
    process.kill()
    process.wait()
    kill(run_processes(workspace.folder / ".llmpipe"))
    process.communicate()
    killed = next(run["run"] for run in runs(workspace, "list") if run["status"] == "unfinished")
    line = workspace.call("runs").stdout.splitlines()[-1]
    assert line == f"{killed}  unfinished   chain: 3 ran, 0 cached, with --set params.word=two"
    shown = workspace.call("runs", "show", killed).stdout
    assert f"run {killed} of chain: unfinished\n" in shown
    assert "with --set params.word=two\n" in shown
    assert "✓ third: done in " in shown
    assert f"logs: {workspace.folder / '.llmpipe' / 'runs' / killed}" in shown
    assert list(runs(workspace, "show", killed)["stages"]) == ["first", "second", "third"]
    assert runs(workspace, "show")["run"] == ended
    assert "is still running, or was killed" in runs(workspace, "compare", ended, killed, code=2)
