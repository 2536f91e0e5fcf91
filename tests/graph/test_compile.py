"""References, artifact types and derived stages, checked before anything runs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from llmpipe.errors import SpecError
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.model import Graph
from llmpipe.graph.sources import HubRepo, LocalPath, StageOutput
from llmpipe.spec.read import read_spec

RECIPE = """\
version: 1
name: recipe
stages:
  quality: {kind: evaluate, models: [base, sft, gguf.q8_0], data: dataset.test}
  dataset: {kind: format, data: ./rows.jsonl, to: messages, split: {test: 0.1}}
  gguf: {kind: export, model: sft, quantize: [q8_0, f16]}
  sft: {kind: train, base_model: ./base.gguf, data: dataset, axolotl: {adapter: lora}}
  chat: {kind: serve, model: gguf.q8_0}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A spec's folder with some data, a GGUF by name, a model folder and a link to itself."""
    (tmp_path / "rows.jsonl").write_text("{}\n", "utf-8")
    (tmp_path / "base.gguf").write_bytes(b"GGUF")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}", "utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "round").symlink_to("round")
    return tmp_path


def compiled(folder: Path, text: str) -> Graph:
    """Write, read and compile a spec."""
    path = folder / "spec.yaml"
    path.write_text(text, "utf-8")
    return compile_spec(read_spec(path))


def refused(folder: Path, stages: str) -> str:
    """Compile stages that do not fit together and return the message."""
    indented = "\n".join(f"  {line}" for line in stages.splitlines())
    with pytest.raises(SpecError) as caught:
        compiled(folder, f"version: 1\nname: x\nstages:\n{indented}\n")
    return re.sub(r"\S*spec\.yaml", "spec.yaml", caught.value.render())


def test_the_main_recipe(folder: Path) -> None:
    """Stages are ordered by need; import and merge are derived, each once."""
    graph = compiled(folder, RECIPE)
    order = list(graph.nodes)
    assert set(order) == {
        "dataset", "import_gguf:base", "sft", "merge:sft", "gguf", "quality", "chat",
    }  # fmt: skip
    for node in graph.nodes.values():
        assert all(order.index(name) < order.index(node.id) for name in node.upstream())
    assert graph.nodes["merge:sft"].derived_for == "gguf"
    assert graph.nodes["sft"].bindings["base_model"].source == StageOutput(
        "import_gguf:base", "model"
    )


def test_an_adapter_brings_its_base(folder: Path) -> None:
    """An adapter's binding carries the model that it was trained on."""
    adapter = compiled(folder, RECIPE).nodes["quality"].bindings["models.1"]
    assert adapter.type == "adapter"
    assert adapter.base is not None
    assert adapter.base.source == StageOutput("import_gguf:base", "model")


def test_base_is_what_the_others_were_trained_on(folder: Path) -> None:
    """``base`` follows conversions back to the training and names what that started from."""
    base = compiled(folder, RECIPE).nodes["quality"].bindings["models.0"]
    assert (base.label, base.type) == ("base", "model")
    assert base.source == StageOutput("import_gguf:base", "model")


def test_two_bases_are_no_base(folder: Path) -> None:
    """Models with different parents leave ``base`` without a meaning."""
    message = refused(
        folder,
        """\
a: {kind: train, base_model: ./base, data: ./rows.jsonl, axolotl: {adapter: lora}}
b: {kind: train, base_model: ./base.gguf, data: ./rows.jsonl, axolotl: {adapter: lora}}
q: {kind: evaluate, models: [base, a, b], data: ./rows.jsonl}""",
    )
    assert "stages.q.models.0: 'base' could mean ./base, ./base.gguf" in message


def test_kinds_of_sources(folder: Path) -> None:
    """Paths, package data and hub ids are told apart by how they are written."""
    graph = compiled(
        folder,
        """\
version: 1
name: x
stages:
  a: {kind: train, base_model: org/name@v1, data: ./rows.jsonl, axolotl: {adapter: lora}}
  b: {kind: format, data: "pkg://llmpipe/py.typed", to: messages}
  c: {kind: format, data: org/rows, to: messages}
  e: {kind: format, sources: [{data: org/rows, split: "train[:9]", subset: en}]}
  d: {kind: command, run: "ls ${inputs.any} > ${outputs.o}", inputs: {any: org/any}, outputs: {o: o}}
""",
    )
    a, b = graph.nodes["a"].bindings, graph.nodes["b"].bindings
    assert graph.nodes["c"].bindings["data"].source == HubRepo("org/rows", None, holds_rows=True)
    (part,) = graph.nodes["e"].bindings.values()
    assert part.source == HubRepo("org/rows", None, True, split="train", subset="en")
    assert graph.nodes["d"].bindings["any"].source == HubRepo("org/any", None)
    assert a["base_model"].source == HubRepo("org/name", "v1")
    assert a["data"].source == LocalPath((folder / "rows.jsonl").resolve())
    assert isinstance(b["data"].source, LocalPath)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("a: {kind: format, sources: [{data: ./rows.jsonl, split: train}]}",
         "'./rows.jsonl' is not a data set of the hub"),
        ("a: {kind: format, data: datset, to: messages}\ndataset: {kind: format, data: ./rows.jsonl, to: messages}",
         "did you mean 'dataset'?"),
        ("a: {kind: format, data: ./row.jsonl, to: messages}", "did you mean 'rows.jsonl'?"),
        ("a: {kind: format, data: ./nowhere/x.jsonl, to: messages}", "nowhere/ does not exist"),
        ("a: {kind: format, data: rows.jsonl, to: messages}", "there is no stage 'rows'"),
        ("a: {kind: format, data: ~nouser/x, to: messages}", "no such file or folder: ~nouser/x"),
        ("a: {kind: format, data: ./round, to: messages}", "no such file or folder: ./round"),
        ('a: {kind: format, data: "./a\\0b", to: messages}', "is no stage, no path and no hub id"),
        ("a: {kind: format, data: a, to: messages}", "stages in a circle: a → a"),
        ("a: {kind: format, data: b, to: messages}\nb: {kind: format, data: a, to: messages}",
         "stages in a circle: a → b → a"),
        ("a: {kind: format, data: 'pkg://no_such_pkg/x', to: messages}", "is not installed"),
        ("a: {kind: format, data: 'pkg://llmpipe/nope', to: messages}", "has no 'nope'"),
        ("a: {kind: export, model: ./empty, quantize: f16}", "a folder without config.json"),
        ("a: {kind: rag, index: ./base, generator: {engine: openai, model: m, base_url: 'http://h'}}",
         "'./base' is of type model; an index is needed here"),
        ("a: {kind: rag, index: ./empty, generator: {engine: openai, model: m, base_url: 'http://h'}}",
         "./empty is a folder without index.json; an index is needed here"),
        ("a: {kind: serve, model: ./empty}", "./empty is a folder; a gguf is needed here"),
        ("a: {kind: serve, model: ./base}", "is of type model; a gguf is needed here"),
        ("g: {kind: export, model: ./base, quantize: [f16, q8_0]}\na: {kind: serve, model: g}",
         "one of: g.f16, g.q8_0"),
        ("g: {kind: export, model: ./base, quantize: f16}\na: {kind: serve, model: g.q8_0}",
         "has no output 'q8_0'"),
        ("d: {kind: format, data: ./rows.jsonl, to: messages}\na: {kind: serve, model: d}",
         "'d' is of type dataset; a gguf is needed here"),
    ],
)  # fmt: skip
def test_references_that_do_not_fit(folder: Path, stages: str, message: str) -> None:
    """A reference that leads nowhere or to the wrong type is one message at its place."""
    found = refused(folder, stages)
    assert message in found
    assert found.startswith("spec.yaml:")


def test_all_that_is_wrong_with_a_stage_is_told_at_once(folder: Path) -> None:
    """A reference to what is broken itself, or to nothing, hides none of the others."""
    message = refused(
        folder,
        "sft: {kind: train, base_model: ./gone, data: ./no.jsonl, axolotl: {adapter: lora}}\n"
        "quality: {kind: evaluate, models: [sft, ./lost], data: ./none.jsonl, metrics: [loss]}",
    )
    told = re.findall(r"no such file or folder: (\S+)", message)
    assert sorted(told) == ["./gone", "./lost", "./no.jsonl", "./none.jsonl"]


def test_a_hub_id_or_a_folder(folder: Path) -> None:
    """A folder that looks like a hub id must be named as a path."""
    (folder / "org" / "name").mkdir(parents=True)
    stages = "a: {kind: train, base_model: org/name, data: ./rows.jsonl, axolotl: {adapter: lora}}"
    assert "for the folder write ./org/name" in refused(folder, stages)


def test_a_folder_shows_what_it_is(folder: Path) -> None:
    """What was copied out of a store can be named by its path."""
    (folder / "shipped").mkdir()
    (folder / "shipped" / "index.json").write_text("{}", "utf-8")
    stages = "a: {kind: rag, index: ./shipped, generator: {engine: openai, model: m, base_url: 'http://h'}}"
    graph = compiled(folder, f"version: 1\nname: x\nstages:\n  {stages}\n")
    assert graph.nodes["a"].bindings["index"].type == "index"


def test_training_on_an_adapter_is_a_choice(folder: Path) -> None:
    """Whether to merge or to go on is the author's to say; the compiler never guesses."""
    stages = """\
a: {kind: train, base_model: ./base, data: ./rows.jsonl, axolotl: {adapter: lora}}
b: {kind: train, base_model: a, data: ./rows.jsonl, axolotl: {adapter: lora}%s}"""
    assert "adapter_start" in refused(folder, stages % "")
    graph = compiled(
        folder,
        "version: 1\nname: x\nstages:\n"
        + "\n".join(f"  {line}" for line in (stages % ", adapter_start: merge").splitlines()),
    )
    assert graph.nodes["b"].bindings["base_model"].source == StageOutput("merge:a", "model")


def test_needs_and_dependents(folder: Path) -> None:
    """The graph knows what depends on a stage and what a stage depends on."""
    graph = compiled(folder, RECIPE)
    assert set(graph.dependents("gguf")) == {"quality", "chat"}
    assert set(graph.needs("merge:sft")) == {"dataset", "import_gguf:base", "sft"}


def test_only_files_and_folders_are_read(folder: Path) -> None:
    """A pipe, a socket or a device may have no end: refused by its name, at its place."""
    os.mkfifo(folder / "pipe.jsonl")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(folder):
        listener.bind("socket")
    for path, what in (
        ("./pipe.jsonl", "a named pipe"),
        ("./socket", "a socket"),
        ("/dev/zero", "a device"),
    ):
        stage = f'x: {{kind: command, run: "true", inputs: {{i: {path}}}, outputs: {{o: o}}}}'
        message = refused(folder, stage)
        assert message.startswith("spec.yaml:4:")
        assert f"{path} is {what}; a regular file or a folder is needed here" in message


@pytest.mark.parametrize("path", ["~", "/", "~/.."])
def test_a_whole_home_is_no_input(folder: Path, path: str) -> None:
    """A slip of the keyboard must not read a disk from end to end."""
    stage = f'x: {{kind: command, run: "true", inputs: {{i: "{path}"}}, outputs: {{o: o}}}}'
    assert f"{path} contains whole home folders" in refused(folder, stage)


def command(name: str, needs: str | None) -> str:
    """Write a stage that takes what another one gives."""
    inputs = f"inputs: {{i: {needs}}}, " if needs else ""
    return f"  {name}: {{kind: command, {inputs}run: 'true > ${{outputs.o}}', outputs: {{o: o}}}}"


@pytest.mark.slow
def test_a_long_chain_written_last_first(folder: Path) -> None:
    """It ended in a RecursionError from 200 stages on; in order any number of them worked."""
    chain = [command(f"s{i}", f"s{i - 1}" if i else None) for i in reversed(range(1500))]
    graph = compiled(folder, "version: 1\nname: n\nstages:\n" + "\n".join(chain))
    assert list(graph.nodes) == [f"s{i}" for i in range(1500)]


def test_a_long_circle_is_named(folder: Path) -> None:
    """Its first stages, and where it closes."""
    circle = [command(f"s{i}", f"s{(i + 1) % 400}") for i in range(400)]
    with pytest.raises(SpecError) as raised:
        compiled(folder, "version: 1\nname: n\nstages:\n" + "\n".join(circle))
    (problem,) = raised.value.problems
    assert "stages in a circle: s0 → s1 → " in problem.message
    assert problem.message.endswith(" → … → s0")


@pytest.mark.parametrize(
    "field",
    ["timeout: 1e299", f"retries: {'9' * 290}", "resources: {memory: 9e9GB}"],
)
def test_numbers_beyond_any_use_are_refused(folder: Path, field: str) -> None:
    """They passed the check and overflowed in the run."""
    stage = f"a: {{kind: command, run: 'true > ${{outputs.o}}', outputs: {{o: o}}, {field}}}"
    assert f"stages.a.{field.partition(':')[0]}" in refused(folder, stage)


ADAPTERS = """\
version: 1
name: adapters
stages:
  one: {kind: train, base_model: ./base, data: ./rows.jsonl, axolotl: {adapter: lora}}
  two: {kind: train, base_model: ./base, data: ./rows.jsonl, axolotl: {adapter: lora}}
  lora: {kind: export_adapter, adapter: one}
  on_two: {kind: train, base_model: two, adapter_start: merge, data: ./rows.jsonl, axolotl: {adapter: lora}}
  on: {kind: train, base_model: one, adapter_start: continue, data: ./rows.jsonl, axolotl: {adapter: lora}}
  lora_of_on: {kind: export_adapter, adapter: on}
  lora_on_two: {kind: export_adapter, adapter: on_two}
  plain: {kind: export, model: ./base, quantize: q8_0}
  other: {kind: export, model: ./other, quantize: q8_0}
  tuned: {kind: export, model: two, quantize: q8_0}
  small: {kind: bundle, server: ollama, model: MODEL, adapter: ADAPTER}
  chat: {kind: serve, model: MODEL, adapters: {mine: ADAPTER}}
"""


@pytest.mark.parametrize(
    ("adapter", "model", "message"),
    [
        ("lora", "plain", ""),
        ("lora_on_two", "tuned", ""),
        ("lora_of_on", "plain", ""),
        ("lora", "./base.gguf", ""),
        ("lora", "other", "lora was trained on ./base; other comes from ./other"),
        ("lora", "tuned", "lora was trained on ./base; tuned comes from two"),
        ("lora_on_two", "plain", "lora_on_two was trained on two; plain comes from ./base"),
        (
            "lora_on_two",
            "./base.gguf",
            "was trained on two; not on ./base.gguf",
        ),
    ],
)
def test_an_adapter_is_put_on_the_model_that_it_was_trained_on(
    folder: Path, adapter: str, model: str, message: str
) -> None:
    """Another one of the same size loads as well. Of a file that no stage made, this is unknown."""
    shutil.copytree(folder / "base", folder / "other")
    text = ADAPTERS.replace("ADAPTER}", f"{adapter}}}").replace("MODEL", model)
    if not message:
        assert compiled(folder, text).nodes["chat"].bindings["adapters.mine"].label == adapter
        return
    with pytest.raises(SpecError) as caught:
        compiled(folder, text)
    problems = [f"{problem.message}; {problem.hint}" for problem in caught.value.problems]
    assert len(problems) == 2
    assert all(message in problem and "put it on a GGUF of" in problem for problem in problems)
