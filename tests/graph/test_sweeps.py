"""Sweeps in the graph: what fans out, what goes together, what ``select`` gathers, and mistakes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmpipe.errors import SpecError
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.model import Graph
from llmpipe.graph.sources import StageOutput
from llmpipe.runner.preflight import preflight
from llmpipe.runner.project import Project
from llmpipe.runner.store import Store
from llmpipe.spec.read import read_spec

TRAIN = "base_model: ./base, data: ./rows.jsonl, axolotl: {adapter: lora}"

CHAIN = f"""\
sft: {{kind: train, {TRAIN}, matrix: {{axolotl.learning_rate: [1e-4, 5e-5]}}}}
gguf: {{kind: export, model: sft, quantize: q8_0}}
quality: {{kind: evaluate, models: [base, sft, gguf], data: ./rows.jsonl}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spec's folder with rows and two model folders."""
    (tmp_path / "rows.jsonl").write_text("{}\n")
    for name in ("base", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    return tmp_path


def compiled(folder: Path, stages: str) -> Graph:
    """Compile these stages."""
    indented = "\n".join(f"  {line}" for line in stages.splitlines())
    path = folder / "spec.yaml"
    path.write_text(f"version: 1\nname: x\nstages:\n{indented}\n")
    return compile_spec(read_spec(path))


def refused(folder: Path, stages: str) -> str:
    """Return the message of stages that cannot be."""
    with pytest.raises(SpecError) as caught:
        compiled(folder, stages)
    return re.sub(r"\S*spec\.yaml", "spec.yaml", caught.value.render())


def needed(graph: Graph, stage: str) -> set[str]:
    """Name the stages that a stage reads from."""
    return set(graph.nodes[stage].upstream())


def test_what_hangs_on_a_sweep_is_made_at_each_point(folder: Path) -> None:
    """Dependents and derived stages carry the point's name and read from the same point."""
    graph = compiled(folder, CHAIN)
    for rate in ("0.0001", "5e-05"):
        point = f"axolotl.learning_rate={rate}"
        assert needed(graph, f"merge:sft@{point}") == {f"sft@{point}"}
        assert needed(graph, f"gguf@{point}") == {f"merge:sft@{point}"}
        assert needed(graph, f"quality@{point}") == {f"sft@{point}", f"gguf@{point}"}
    assert len(graph.nodes) == 8
    assert graph.families["gguf"] == [
        "gguf@axolotl.learning_rate=0.0001",
        "gguf@axolotl.learning_rate=5e-05",
    ]


def test_two_axes_sort_in_the_name(folder: Path) -> None:
    """The order in which axes are written is not in the names."""
    matrix = "{axolotl.lora_r: [8], axolotl.learning_rate: [1e-4]}"
    graph = compiled(folder, f"sft: {{kind: train, {TRAIN}, matrix: {matrix}}}")
    assert list(graph.nodes) == ["sft@axolotl.learning_rate=0.0001,axolotl.lora_r=8"]


def test_two_sweeps_multiply_where_they_meet(folder: Path) -> None:
    """A stage that reads from two sweeps is made at every pair, and only there."""
    graph = compiled(
        folder,
        """\
mix: {kind: format, data: ./rows.jsonl, to: messages, split: {test: 5}, matrix: {split.random_seed: [1, 2]}}
sft: {kind: train, base_model: ./base, data: mix, axolotl: {adapter: lora}, matrix: {axolotl.lora_r: [8, 16]}}
dev: {kind: evaluate, models: [sft], data: mix.test}""",
    )
    assert {name for name in graph.nodes if name.startswith("dev")} == {
        f"dev@axolotl.lora_r={r},split.random_seed={s}" for r in (8, 16) for s in (1, 2)
    }
    assert needed(graph, "dev@axolotl.lora_r=16,split.random_seed=2") == {
        "sft@axolotl.lora_r=16,split.random_seed=2",
        "mix@split.random_seed=2",
    }


def test_a_diamond_keeps_to_its_point(folder: Path) -> None:
    """Two ways down from one sweep meet at the same point, not at every pair."""
    graph = compiled(
        folder,
        """\
a: {kind: format, data: ./rows.jsonl, to: messages, matrix: {dedup: [true, false]}}
b: {kind: command, run: "x ${outputs.o}", inputs: {i: a}, outputs: {o: o.txt}}
c: {kind: command, run: "x ${outputs.o}", inputs: {i: a, j: b}, outputs: {o: o.txt}}""",
    )
    assert [name for name in graph.nodes if name.startswith("c")] == [
        "c@dedup=true",
        "c@dedup=false",
    ]
    assert needed(graph, "c@dedup=true") == {"a@dedup=true", "b@dedup=true"}


def test_equal_axes_of_two_stages_are_told_apart(folder: Path) -> None:
    """Where both fan a stage out, the axis carries the name of its stage."""
    graph = compiled(
        folder,
        """\
a: {kind: command, run: "x ${outputs.o}", outputs: {o: o.txt}, matrix: {env.X: [p, q]}}
b: {kind: command, run: "x ${outputs.o}", inputs: {i: a}, outputs: {o: o.txt}, matrix: {env.X: [p, q]}}""",
    )
    assert [name for name in graph.nodes if name.startswith("b")] == [
        "b@a.env.X=p,b.env.X=p", "b@a.env.X=q,b.env.X=p",
        "b@a.env.X=p,b.env.X=q", "b@a.env.X=q,b.env.X=q",
    ]  # fmt: skip
    assert graph.nodes["b@a.env.X=q,b.env.X=p"].config.env == {"X": "p"}  # type: ignore[attr-defined]


def test_base_is_the_one_of_each_point(folder: Path) -> None:
    """In a sweep over base models, ``base`` is at each point what that point started from."""
    graph = compiled(
        folder,
        f"""\
sft: {{kind: train, {TRAIN}, matrix: {{base_model: [./base, ./other]}}}}
quality: {{kind: evaluate, models: [base, sft], data: ./rows.jsonl}}""",
    )
    found = {
        name: node.bindings["models.0"].source.path.name  # type: ignore[union-attr]
        for name, node in graph.nodes.items()
        if name.startswith("quality")
    }
    assert found == {"quality@base_model=./base": "base", "quality@base_model=./other": "other"}


def test_select_ends_a_sweep(folder: Path) -> None:
    """It takes all points at once; what depends on it is one stage and knows the winner's type."""
    graph = compiled(
        folder,
        CHAIN
        + """\
best: {kind: select, of: sft, by: quality.sft.loss, mode: min}
chosen: {kind: export, model: best, quantize: q8_0}""",
    )
    best = graph.nodes["best"]
    assert best.point == {}
    assert list(best.bindings) == [
        f"{port}[axolotl.learning_rate={rate}]"
        for port in ("of", "by")
        for rate in ("0.0001", "5e-05")
    ]
    assert best.ports.outputs["winner"].type == "adapter"
    assert graph.nodes["chosen"].bindings["model"].source == StageOutput("merge:best", "model")
    assert needed(graph, "merge:best") == {"best"}


def test_select_over_a_product_and_over_equal_axes(folder: Path) -> None:
    """All pairs of two sweeps are candidates, also where the axes have one name."""
    graph = compiled(
        folder,
        """\
a: {kind: command, run: "x ${outputs.o}", outputs: {o: o.json}, matrix: {env.X: [p, q]}}
b: {kind: command, run: "x ${outputs.o}", inputs: {i: a}, outputs: {o: o.json}, matrix: {env.X: [p, q]}}
best: {kind: select, of: b, by: b.loss, mode: min}""",
    )
    points = [port[3:-1] for port in graph.nodes["best"].bindings if port.startswith("of")]
    assert points == [f"a.env.X={a},b.env.X={b}" for b in "pq" for a in "pq"]


def test_select_takes_the_metrics_where_a_stage_makes_other_things_too(folder: Path) -> None:
    """``by`` cannot name an output: the only one that can hold metrics is meant."""
    fit = (
        "fit: {kind: command, run: x, outputs: {w: w.bin, m: m.json%s}, matrix: {env.X: [p, q]}}\n"
    )
    best = "best: {kind: select, of: fit.w, by: fit.loss, mode: min}"
    graph = compiled(folder, fit % "" + best)
    assert graph.nodes["best"].bindings["by[env.X=q]"].source == StageOutput("fit@env.X=q", "m")
    message = refused(folder, fit % ", n: n.json" + best)
    assert "stages.best.by: 'fit' has several outputs: say which" in message


def test_select_needs_metrics_of_the_same_points(folder: Path) -> None:
    """A metric of another stage, or of another sweep, decides nothing."""
    stages = """\
a: {kind: command, run: "x ${outputs.o}", outputs: {o: o.json}, matrix: {env.X: [p, q]}}
c: {kind: command, run: "x ${outputs.o}", outputs: {o: o.json}}
best: {kind: select, of: a, by: c.loss, mode: min}"""
    message = refused(folder, stages)
    assert message.startswith("spec.yaml:6:")
    assert "stages.best.by: 'c' is not made at the points of 'a'" in message
    assert "name a stage that takes 'a' and measures it" in message


def test_candidates_must_be_of_one_kind(folder: Path) -> None:
    """Adapters of several models have no one base: what depends on the winner could not be typed."""
    message = refused(
        folder,
        f"""\
sft: {{kind: train, {TRAIN}, matrix: {{base_model: [./base, ./other]}}}}
dev: {{kind: evaluate, models: [sft], data: ./rows.jsonl}}
best: {{kind: select, of: sft, by: dev.sft.loss, mode: min}}""",
    )
    assert (
        "stages.best.of: the candidates are of several types or were trained on several models"
        in (message)
    )


@pytest.mark.parametrize(
    ("axis", "place", "message"),
    [
        ("nosuch.field: [1, 2]", "9:7", "stages.a: unknown key 'nosuch'"),
        ("retrys: [1, 2]", "9:7", "did you mean 'retries'?"),
        ("env.X: [1, a]", "9:15", "stages.a.env.X: must be a string, not 1"),
        ("env.X: [a, 2]", "9:18", "stages.a.env.X: must be a string, not 2"),
        ("include: [{env.X: a, nosuch: 2}]", "9:28", "unknown key 'nosuch'"),
        ("inputs.i: [./nope.txt, ./rows.jsonl]", "9:18", "no such file or folder: ./nope.txt"),
        ("inputs.i: [b]", "9:18", "there is no stage 'b'"),
        ("inputs.i: [a]", "9:18", "stages in a circle: a → a"),
    ],
)
def test_a_bad_axis_is_one_problem_at_its_place(
    folder: Path, axis: str, place: str, message: str
) -> None:
    """The axis for a path that is not there, the value for one that does not fit; each once."""
    found = refused(
        folder,
        f"""\
a:
  kind: command
  run: "x > ${{outputs.o}}"
  outputs: {{o: o.txt}}
  matrix:
    {axis}""",
    )
    assert message in found
    assert f"spec.yaml:{place}:" in found
    assert found.count("spec.yaml:") == 1, found


def test_sweeps_do_not_multiply_without_end(folder: Path) -> None:
    """Forty values here and forty there are refused where they meet."""
    values = [str(i) for i in range(40)]
    message = refused(
        folder,
        f"""\
a: {{kind: command, run: "x > ${{outputs.o}}", outputs: {{o: o.txt}}, matrix: {{env.X: {values}}}}}
b: {{kind: command, run: "x > ${{outputs.o}}", outputs: {{o: o.txt}}, matrix: {{env.X: {values}}}}}
c: {{kind: command, run: "x > ${{outputs.o}}", inputs: {{a: a, b: b}}, outputs: {{o: o.txt}}}}""",
    )
    assert "sweeps multiply to over 1000 points" in message
    assert "spec.yaml:6:" in message


@pytest.mark.heavy
def test_an_axis_that_axolotl_does_not_know_is_shown_where_it_stands(folder: Path) -> None:
    """A path into the Axolotl block is held against the installed Axolotl, once for all points."""
    stages = f"""\
sft:
  kind: train
  {TRAIN.replace(", ", chr(10) + "  ")}
  matrix:
    axolotl.lr: [1e-4, 2e-4]"""
    graph = compiled(folder, stages)
    with pytest.raises(SpecError) as caught:
        preflight(Project(graph, Store(folder / "home")), list(graph.nodes), strict=False)
    message = re.sub(r"\S*spec\.yaml", "spec.yaml", caught.value.render())
    assert message.startswith("spec.yaml:10:7: stages.sft.axolotl.lr: ")
    assert message.count("spec.yaml:") == 1
