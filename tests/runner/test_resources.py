"""Who gets what of the machine: threads, memory, GPUs, jobs, and in which order."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmpipe.graph.compile import compile_spec
from llmpipe.graph.model import Graph
from llmpipe.runner.resources import Grant, Machine, Pool
from llmpipe.spec.read import read_spec

NOTE = 'echo "+ $STAGE $(date +%s.%N) $CUDA_VISIBLE_DEVICES" >> times'
WORK = f'{NOTE}; sleep 0.4; echo "- $STAGE $(date +%s.%N)" >> times; echo > ${{outputs.o}}'


def spec_of(stages: dict[str, str]) -> str:
    """Return a spec of commands that note when they begin and end; each with some more fields."""
    lines = ["version: 1", "name: shared", "stages:"]
    for name, fields in stages.items():
        lines.append(
            f"  {name}: {{kind: command, run: '{WORK}', outputs: {{o: o.txt}}, env: {{STAGE: {name}}}{fields}}}"
        )
    return "\n".join(lines) + "\n"


def needs(text: str) -> str:
    """Return the field resources."""
    return f", resources: {{{text}}}"


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """Stages with needs of every sort."""
    stages = {
        "plain": "",
        "two": needs("cpus: 2"),
        "many": needs("cpus: 100"),
        "small": needs("memory: 1GB"),
        "large": needs("memory: 3GB"),
        "huge": needs("memory: 100GB"),
        "gpu-a": needs("gpus: 1"),
        "gpu-b": needs("gpus: 1"),
        "gpu-c": needs("gpus: 1"),
        "gpu-both": needs("gpus: 2"),
        "no-gpu": needs("gpus: 0"),
    }
    path = tmp_path / "spec.yaml"
    path.write_text(spec_of(stages))
    return compile_spec(read_spec(path))


def take(pool: Pool, graph: Graph, name: str) -> Grant | None:
    """Ask for what a stage needs."""
    return pool.take(graph.nodes[name])


def test_threads_are_shared(graph: Graph) -> None:
    """Stages run together while their threads fit; who asks for more than there is gets it all."""
    pool = Pool(Machine(cpus=4, memory=10**10))
    held = [take(pool, graph, "two"), take(pool, graph, "plain")]
    assert [grant.cpus for grant in held if grant] == [2, 1]
    assert take(pool, graph, "two") is None
    assert take(pool, graph, "plain") is not None
    assert pool.full
    for grant in held:
        assert grant is not None
        pool.give_back(grant)
        pool.give_back(grant)  # the second time it is nobody's
    assert take(pool, graph, "many") is None
    assert take(pool, graph, "two") is not None
    alone = take(Pool(Machine(cpus=4, memory=10**10)), graph, "many")
    assert alone is not None
    assert alone.cpus == 4


def test_memory_is_shared(graph: Graph) -> None:
    """Needs that exceed the machine's memory take turns; who names none is not counted."""
    pool = Pool(Machine(cpus=8, memory=4 * 10**9))
    small, large = take(pool, graph, "small"), take(pool, graph, "large")
    assert small is not None
    assert large is not None
    assert take(pool, graph, "small") is None
    assert take(pool, graph, "plain") is not None
    pool.give_back(large)
    assert take(pool, graph, "small") is not None


def test_gpus_are_given_out_one_by_one(graph: Graph) -> None:
    """Two stages get a GPU each, a third waits for one of them, whichever is free first."""
    pool = Pool(Machine(cpus=8, memory=10**10, gpus=("0", "1")))
    a, b = take(pool, graph, "gpu-a"), take(pool, graph, "gpu-b")
    assert a is not None
    assert b is not None
    assert (a.environment(), b.environment()) == (
        {"CUDA_VISIBLE_DEVICES": "0"},
        {"CUDA_VISIBLE_DEVICES": "1"},
    )
    assert take(pool, graph, "gpu-c") is None
    assert take(pool, graph, "gpu-both") is None
    pool.give_back(b)
    c = take(pool, graph, "gpu-c")
    assert c is not None
    assert c.gpus == ("1",)
    for grant in (a, c):
        pool.give_back(grant)
    both = take(pool, graph, "gpu-both")
    assert both is not None
    assert both.environment() == {"CUDA_VISIBLE_DEVICES": "0,1"}


def test_who_asks_for_no_gpu_sees_none_and_who_does_not_ask_sees_all(graph: Graph) -> None:
    """``gpus: 0`` hides them; without the field the environment stays as it is."""
    pool = Pool(Machine(cpus=8, memory=10**10, gpus=("0",)))
    none, plain = take(pool, graph, "no-gpu"), take(pool, graph, "plain")
    assert none is not None
    assert plain is not None
    assert none.environment() == {"CUDA_VISIBLE_DEVICES": ""}
    assert plain.environment() == {}


def test_jobs_are_a_limit(graph: Graph) -> None:
    """``-j 1`` is one stage at a time, whatever is free."""
    pool = Pool(Machine(cpus=8, memory=10**10), jobs=1)
    first = take(pool, graph, "plain")
    assert first is not None
    assert pool.full
    assert take(pool, graph, "small") is None
    pool.give_back(first)
    assert take(pool, graph, "small") is not None


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("0,1", ("0", "1")),
        ("", ()),
        ("-1", ()),
        ("3, 5", ("3", "5")),
        ("1,-1,2", ("1",)),
        ("GPU-8f2a,MIG-1c", ("GPU-8f2a", "MIG-1c")),
    ],
)
def test_the_environment_says_which_gpus_there_are(
    monkeypatch: pytest.MonkeyPatch, visible: str, found: tuple[str, ...]
) -> None:
    """As CUDA reads it: names of any sort, up to the first that is none."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Machine.here().gpus == found


def times(folder: Path) -> dict[str, tuple[float, float, str]]:
    """Return when each stage began and ended and which GPUs it saw, as it noted down itself."""
    lines = [line.split() for line in (folder / "times").read_text().splitlines()]
    began = {line[1]: (float(line[2]), "".join(line[3:])) for line in lines if line[0] == "+"}
    ended = {line[1]: float(line[2]) for line in lines if line[0] == "-"}
    return {name: (began[name][0], ended[name], began[name][1]) for name in began}


def overlap(found: dict[str, tuple[float, float, str]], one: str, other: str) -> bool:
    """Return whether two stages ran at the same time."""
    return found[one][0] < found[other][1] and found[other][0] < found[one][1]


@pytest.mark.usefixtures("all_cores")
def test_stages_with_a_gpu_each_run_at_once(workspace: Any) -> None:
    """Each sees its own GPU and no other."""
    workspace.write(spec_of({"a": needs("gpus: 1"), "b": needs("gpus: 1")}))
    workspace.run("-j2", CUDA_VISIBLE_DEVICES="4,7")
    found = times(workspace.folder)
    assert overlap(found, "a", "b")
    assert {found["a"][2], found["b"][2]} == {"4", "7"}


@pytest.mark.usefixtures("all_cores")
def test_stages_take_turns_on_one_gpu(workspace: Any) -> None:
    """A stage without needs runs beside the one that has the GPU."""
    workspace.write(spec_of({"a": needs("gpus: 1"), "b": needs("gpus: 1"), "c": ""}))
    workspace.run("-j3", CUDA_VISIBLE_DEVICES="0")
    found = times(workspace.folder)
    assert not overlap(found, "a", "b")
    assert overlap(found, "c", "a")
    assert [found[name][2] for name in "abc"] == ["0", "0", "0"]


def test_memory_makes_stages_take_turns(workspace: Any) -> None:
    """Two that need more than half of the machine do not run together."""
    half = Machine.here().memory * 6 // 10 // 10**6
    stages = {"a": needs(f"memory: {half}MB"), "b": needs(f"memory: {half}MB")}
    workspace.write(spec_of(stages))
    workspace.run("-j2")
    assert not overlap(times(workspace.folder), "a", "b")


@pytest.mark.parametrize(
    ("resources", "field", "message"),
    [
        ("gpus: 3", "gpus", "it needs 3 GPUs; this machine has 2"),
        ("memory: 900TB", "memory", "it needs 900TB of memory; this machine has "),
    ],
)
def test_needs_that_are_never_met_fail_before_anything_runs(
    workspace: Any, resources: str, field: str, message: str
) -> None:
    """Also those of a stage whose turn would come hours later; its line is shown."""
    last = f", inputs: {{i: first}}{needs(resources)}"
    workspace.write(spec_of({"first": "", "last": last}))
    result = workspace.call("run", "spec.yaml", CUDA_VISIBLE_DEVICES="0,1")
    assert result.returncode == 2, result.stderr
    assert f"stages.last.resources.{field}: {message}" in result.stderr
    assert "spec.yaml:5:" in result.stderr
    assert not (workspace.folder / "times").exists()
    assert workspace.call("validate", "spec.yaml").returncode == 0  # sound, on another machine
    assert workspace.run("--only", "first")["status"] == "done"


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ("cpus: 0", "must be a whole number of at least 1, not 0"),
        ("gpus: -1", "must be a whole number of at least 0, not -1"),
        ("memory: 8", "must be a string, not 8"),
        ("memory: 8GiBs", ', not "8GiBs"'),
        ("gpu: 1", "did you mean 'gpus'?"),
    ],
)
def test_needs_that_make_no_sense(workspace: Any, resources: str, message: str) -> None:
    """They are problems of the spec like any other."""
    workspace.write(spec_of({"a": needs(resources)}))
    result = workspace.call("run", "spec.yaml")
    assert result.returncode == 2
    assert message in result.stderr


def test_one_job_runs_one_stage_at_a_time(workspace: Any) -> None:
    """``-j 1``, in the order of the spec where nothing else decides."""
    workspace.write(spec_of({"a": "", "b": "", "c": ""}))
    workspace.run("-j", "1")
    found = times(workspace.folder)
    assert sorted(found, key=lambda name: found[name][0]) == ["a", "b", "c"]
    assert not any(overlap(found, x, y) for x, y in ("ab", "bc", "ac"))


def test_the_longest_way_goes_first(workspace: Any) -> None:
    """By the number of stages at first, by the time that they took once that is known."""
    tail = {"x": ", inputs: {i: long}", "y": ", inputs: {i: x}"}
    workspace.write(spec_of({"short": "", "long": "", **tail}))
    workspace.run("-j1")
    found = times(workspace.folder)
    assert found["long"][0] < found["short"][0]
    (workspace.folder / "times").unlink()

    slow = spec_of({"short": "", "long": "", **tail}).replace("sleep 0.4", "sleep 3", 1)
    workspace.write(slow)  # what was short takes longer now than all the others together
    workspace.run("-j1")
    (workspace.folder / "times").unlink()
    workspace.run("-j1", "--force", "short", "--from", "long")
    found = times(workspace.folder)
    assert found["short"][0] < found["long"][0]


def test_the_plan_tells_how_long_it_will_take(workspace: Any) -> None:
    """From earlier runs: by stage, and in all; what is not known is counted."""
    workspace.write(spec_of({"a": "", "b": ", inputs: {i: a}"}).replace("sleep 0.4", "sleep 1.2"))
    assert workspace.call("plan", "spec.yaml").stdout.splitlines()[-1] == (
        "2 stages: 2 to run, 0 cached"
    )
    workspace.run()
    text = workspace.spec.read_text()
    workspace.write(
        text + text.splitlines()[-1].replace("  b:", "  c:").replace("i: a", "i: b") + "\n"
    )
    forced = ("--force", "a", "--force", "b")
    lines = workspace.call("run", "spec.yaml", "--dry-run", *forced).stdout.splitlines()
    assert re.fullmatch(r"a +command +run, about \d s", lines[0])
    assert re.fullmatch(
        r"3 stages: 3 to run \(about \d s and 1 of unknown length\), 0 cached", lines[-1]
    )
    planned = workspace.call("run", "spec.yaml", "--dry-run", "--json", *forced)
    plan = json.loads(planned.stdout)["stages"]
    assert plan["a"]["seconds"] > 1.2
    assert plan["c"]["seconds"] is None
