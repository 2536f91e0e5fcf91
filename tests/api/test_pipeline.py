"""The Python API over specs of command stages: what a script and a notebook do with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workspace import Workspace

import llmpipe
from llmpipe.api.loading import _setting
from llmpipe.api.pipeline import Pipeline
from llmpipe.errors import LlmpipeError, RunError, SpecError, StoreError, UsageError
from llmpipe.spec.load import Source, parse_value

SPEC = """\
version: 1
name: things
params: {word: one}
profiles: {big: {params: {word: big}}}
stages:
  rows:
    kind: command
    run: 'for i in 1 2 3; do echo "{\\"n\\": $i, \\"w\\": \\"${params.word}\\"}"; done > ${outputs.o}'
    outputs: {o: o.jsonl}
  both: {kind: command, run: "wc -l < ${inputs.i} | tee ${outputs.a} > ${outputs.b}", inputs: {i: rows}, outputs: {a: a, b: b}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec of two stages, nothing run."""
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC, "utf-8")
    return path


@pytest.mark.slow
def test_it_is_planned_run_and_read(spec: Path) -> None:
    """The whole way: why, what came of it, where it lies, and its rows."""
    pipe = llmpipe.load(spec)
    assert pipe.stages == ["rows", "both"]
    plan = pipe.plan()
    assert plan.to_run == ["rows", "both"]
    assert plan["rows"].causes == [{"cause": "new"}]
    assert repr(plan).endswith("2 stages: 2 to run, 0 cached")
    with pytest.raises(StoreError) as caught:
        pipe.path("rows")
    assert caught.value.hint == "make it first: pipe.run(only=['rows'])"
    run = pipe.run(progress=False)
    assert (run.status, [s.status for s in run.stages.values()]) == ("done", ["done", "done"])
    assert run.metrics["both"] == pipe.metrics("both") == {"outputs": 2}
    assert run.report is not None
    assert run.report.read_text().startswith("<!doctype html>")
    assert pipe.path("both.a").read_text().strip() == "3"
    rows = pipe.rows("rows")
    assert list(rows) == [{"n": n, "w": "one"} for n in (1, 2, 3)]
    assert len(rows) == 3
    assert [row["n"] for row in rows.head(2)] == [1, 2]
    assert pipe.plan().status == "cached"
    assert pipe.run(progress=False).report is None


@pytest.mark.slow
def test_settings_and_profiles_are_laid_over_it(spec: Path) -> None:
    """As --set and --profile; a value may be any that stands in a spec."""
    run = llmpipe.load(spec, profiles="big").run(only="rows", progress=False)
    assert run.stages["both"].status == "skipped"
    assert llmpipe.load(spec, profiles=["big"]).rows("rows").head(1)[0]["w"] == "big"
    changed = llmpipe.load(spec, set={"params.word": "two: #words"})
    changed.run(progress=False)
    assert changed.rows("rows").head(1)[0]["w"] == "two: #words"
    with pytest.raises(UsageError, match=r"the value of params.word cannot be used in a spec"):
        llmpipe.load(spec, set={"params.word": {1, 2}})
    with pytest.raises(UsageError, match=r"has no params.wrd"):
        llmpipe.load(spec, set={"params.wrd": 1})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Co", "Cn"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"\A[a-z]+\Z"), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@pytest.mark.slow
@given(VALUES)
def test_every_value_arrives_as_it_is(value: Any) -> None:
    """Written as YAML reads it: words stay words, numbers numbers."""
    text = _setting("params.x", value).removeprefix("params.x=")
    node = parse_value(text, Source("set", (text,)))
    assert node is not None
    assert node.plain() == value


def test_what_an_earlier_run_made_is_taken(spec: Path) -> None:
    """By its name or as the last; what differs now is warned of."""
    made = llmpipe.load(spec, set={"params.word": "two"}).run(progress=False)
    pipe = llmpipe.load(spec)
    with pytest.raises(StoreError) as caught:
        pipe.rows("rows")
    assert caught.value.hint is not None
    assert f"run='{made.id}')" in caught.value.hint
    assert llmpipe.load(spec, run=made.id).rows("rows").head(1)[0]["w"] == "two"
    spec.write_text(SPEC.replace("1 2 3", "1 2"))
    with pytest.warns(UserWarning, match="not as the spec says now: rows: run: "):
        assert len(llmpipe.load(spec, run="last").rows("rows")) == 3


@pytest.mark.slow
def test_a_failure_is_raised_with_the_run(spec: Path) -> None:
    """Why, with the run at hand; or only told, where that is asked for."""
    pipe = llmpipe.load(spec, set={"stages.both.run": "echo no >&2; exit 3"})
    with pytest.raises(RunError, match="stage both failed: the command ended") as caught:
        pipe.run(progress=False)
    assert caught.value.run.stages["rows"].status == "done"
    assert caught.value.hint is not None
    assert "| no" in caught.value.hint
    assert pipe.run(progress=False, check=False).status == "failed"


def test_a_wrong_spec_is_an_error_with_its_place(workspace: Workspace) -> None:
    """And Python shows the place and the advice below the traceback."""
    workspace.write(SPEC.replace("kind: command\n", "kind: comand\n"))
    with pytest.raises(SpecError) as caught:
        llmpipe.load(workspace.spec)
    assert caught.value.location is not None
    assert caught.value.location.line == 7
    assert "did you mean 'command'?" in caught.value.__notes__[0]
    (shown,) = caught.value._render_traceback_()  # by IPython
    assert shown == f"SpecError: {caught.value.render()}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": "rows", "force": "both"}, r"force=\['both'\] does nothing with only=\['rows'\]"),
        ({"resample": "rows"}, r"resample=\['rows'\]: a stage of kind command journals no replies"),
        ({"keep": ["rows"]}, r"keep=\['rows'\]: the store has nothing that it made"),
        ({"only": "row"}, "has no stage 'row'"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(
    spec: Path, arguments: dict[str, Any], message: str
) -> None:
    """In the words of the caller."""
    with pytest.raises(UsageError, match=message):
        llmpipe.load(spec).run(progress=False, **arguments)


@pytest.mark.slow
def test_artifacts_are_named_as_a_spec_names_them(spec: Path, tmp_path: Path) -> None:
    """Of several outputs one is to be said; what has no rows says so; a copy may be changed."""
    pipe = llmpipe.load(spec)
    pipe.run(progress=False)
    with pytest.raises(UsageError, match="both has several outputs"):
        pipe.path("both")
    with pytest.raises(UsageError, match="both has no output 'c'"):
        pipe.path("both.c")
    copied = pipe.copy("both.a", tmp_path / "copy")
    copied.write_text("mine")
    assert pipe.path("both.a").read_text() != "mine"


def test_events_reach_a_function(spec: Path) -> None:
    """``progress`` may be what is called with each."""
    seen: list[str] = []
    llmpipe.load(spec).run(progress=lambda event: seen.append(event["event"]))
    assert seen[0] == "run-started"
    assert seen[-1] == "run-ended"


@pytest.mark.slow
def test_it_runs_in_a_thread_and_in_a_running_event_loop(spec: Path) -> None:
    """As web frameworks and Jupyter would call it."""
    found: list[str] = []

    def work() -> None:
        found.append(llmpipe.load(spec).run(progress=False).status)

    async def main() -> None:
        work()
        await asyncio.to_thread(lambda: llmpipe.load(spec).run(force="rows", progress=False))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    asyncio.run(main())
    assert found == ["done", "done"]


def test_ctrl_c_stops_the_stages(workspace: Workspace) -> None:
    """What is running ends, what is finished is kept, and the caller gets KeyboardInterrupt."""
    workspace.write(SPEC.replace("wc -l", "sleep 60; wc -l"))
    code = (
        "import llmpipe\n"
        "pipe = llmpipe.load('spec.yaml')\n"
        "try: pipe.run(progress=lambda event: print(event['event'], event.get('stage'), flush=True))\n"
        "except KeyboardInterrupt as error: print('stopped:', error, flush=True)\n"
        "print(pipe.plan().to_run)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=workspace.folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            if line == "usage both\n":
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode == 0
    assert "stopped: interrupted in " in rest
    assert rest.endswith("['both']\n")


def test_tables_escape_what_they_show(workspace: Workspace) -> None:
    """A notebook shows rows, plans and runs as HTML; no cell of theirs is obeyed."""
    workspace.write(SPEC.replace("params: {word: one}", 'params: {word: "<b>&"}'))
    pipe = llmpipe.load(workspace.spec)
    plan = pipe.plan()._repr_html_()
    run = pipe.run(progress=False)
    assert "<td" in plan
    assert "it has not run yet" in plan
    assert "✓ done" in run._repr_html_()
    table = pipe.rows("rows").head()
    assert table.columns == ["n", "w"]
    assert "&lt;b&gt;&amp;" in table._repr_html_()
    assert repr(table).startswith("n: 1\nw: <b>&\n\nn: 2")


def test_rows_are_sampled_evenly_and_always_the_same(workspace: Workspace) -> None:
    """Each row is as likely as any; the same seed draws the same ones, in their order."""
    workspace.write(SPEC.replace("1 2 3", "$(seq 1 200)"))
    pipe = llmpipe.load(workspace.spec)
    pipe.run(only="rows", progress=False)
    rows = pipe.rows("rows")
    drawn = [row["n"] for row in rows.sample(20, seed=3)]
    assert drawn == [row["n"] for row in rows.sample(20, seed=3)] == sorted(set(drawn))
    assert len(drawn) == 20
    counts = [0] * 4
    for seed in range(40):
        for row in rows.sample(5, seed=seed):
            counts[(row["n"] - 1) // 50] += 1
    assert min(counts) > 25


def test_a_spec_is_checked_drawn_and_asked_what_it_needs(spec: Path) -> None:
    """What ``validate``, ``graph`` and ``doctor`` print, as values."""
    pipe = llmpipe.load(spec)
    assert pipe.validate() == []
    assert pipe.draw().startswith("flowchart")
    assert pipe.draw("dot").startswith("digraph")
    assert "The stages of things" in pipe.draw("svg")
    with pytest.raises(UsageError, match="unknown format 'png'"):
        pipe.draw("png")
    spec.write_text(SPEC.replace("wc -l <", "no-such-program"), "utf-8")
    first = llmpipe.load(spec).requirements()[0]
    assert (first.need.name, first.blocks, [*first.stages]) == ("no-such-program", True, ["both"])


@pytest.mark.slow
def test_artifacts_are_pushed_and_pulled(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one store made and pushed, another pulls; the transfer says what became of each stage."""
    with pytest.raises(UsageError, match=r"spec\.yaml has no remote store"):
        llmpipe.load(spec).remote  # noqa: B018
    spec.write_text(f"{SPEC}cache: {{remote: ./shared}}\n", "utf-8")
    pipe = llmpipe.load(spec)
    pipe.run(only="rows", progress=False)
    sizes: list[int] = []
    pushed = pipe.remote.push(progress=sizes.append)
    assert pushed.stages == {"rows": "moved", "both": "missing"}
    assert (pushed.complete, pushed.size) == (False, sizes[-1])
    assert pipe.remote.push("rows").stages == {"rows": "there"}
    monkeypatch.setenv("LLMPIPE_HOME", str(spec.parent / "elsewhere"))
    other = llmpipe.load(spec)
    pulled = other.remote.pull("rows")
    assert (pulled.stages, pulled.size, pulled.complete) == ({"rows": "moved"}, pushed.size, True)
    assert len(list(other.rows("rows"))) == 3
    assert other.remote.pull("rows").stages == {"rows": "there"}


def test_the_command_line_says_the_same(workspace: Workspace) -> None:
    """One code below both: the same plan, the same run."""
    workspace.write(SPEC)
    pipe = llmpipe.load(workspace.spec)
    told = json.loads(workspace.call("plan", "spec.yaml", "--json").stdout)
    assert told == pipe.plan().as_json()
    assert workspace.run()["stages"]["both"]["outputs"]["a"] == str(pipe.path("both.a"))


def test_importing_it_is_light() -> None:
    """``import llmpipe`` imports nothing but itself; loading a spec nothing heavy."""
    code = (
        "import sys; before = set(sys.modules); import llmpipe; print(*set(sys.modules) - before)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) <= {"llmpipe", "__future__"}
    from llmpipe.testing import HEAVY

    code = f"import sys, llmpipe; llmpipe.load; llmpipe.Service; print(*set(sys.modules) & set({HEAVY!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not found.stdout.strip()


def test_what_is_public_is_there() -> None:
    """Every name of ``__all__`` leads somewhere; others are refused as Python does."""
    assert {getattr(llmpipe, name) for name in llmpipe.__all__}
    assert set(dir(llmpipe)) == set(llmpipe.__all__)
    assert llmpipe.Pipeline is Pipeline
    assert llmpipe.LlmpipeError is LlmpipeError
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        llmpipe.lod  # noqa: B018  # type: ignore[attr-defined]


def test_no_warning_where_nothing_is_wrong(spec: Path) -> None:
    """A sound spec is loaded, run and read in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe = llmpipe.load(os.fspath(spec))
        pipe.run(progress=False)
        pipe.rows("rows").head()
