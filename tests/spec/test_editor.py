"""What an editor shows of a spec: the real yaml-language-server is asked, as an editor asks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from language_server import LanguageServer

from llmpipe.registry import KINDS

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("examples/*/spec.yaml"))
FOLDER = ROOT / "examples/any"
"""Where the documents of these tests seem to stand."""

MODELINE = "# yaml-language-server: $schema=../../schemas/spec.schema.json\n"
HEAD = f"{MODELINE}version: 1\nname: sample\n"

EXPRESSIONS = """\
params: {n: 3, list: [a], block: {a: 1}, yes: true}
cache: {remote: "${env:REMOTE}"}
stages:
  rows:
    kind: format
    sources: "${params.list}"
    to: "${params.to}"
    split: {eval: "${params.n}", test: 0.1, random_seed: "${params.n}"}
    timeout: "${params.n}"
    retries: "${params.n}"
    freeze: "${params.yes}"
    resources: {cpus: "${params.n}", memory: "${params.memory}"}
  sft:
    kind: train
    base_model: org/name
    data: rows
    axolotl: "${params.block}"
    adapter_start: "${params.start}"
    launch: "${params.block}"
    matrix: {axolotl.lora_r: "${params.list}", max_parallel: "${params.n}"}
  quality:
    kind: evaluate
    models: ["${params.base}", sft]
    data: rows
    metrics: [loss, "${params.metric}"]
    max_new_tokens: "${params.n}"
  chat: {kind: serve, model: sft, port: "${params.n}", sample: "${params.list}"}
"""

PROFILES = """\
profiles:
  gpu:
    params: {base: org/name}
    stages:
      sft: {axolotl: {bf16: auto, learning_rate: 2e-4}, timeout: 60, matrix: ~}
      rows: {split: {test: 5}}
  named: {stages: {sft: {kind: train, launch: {launcher: torchrun}}}}
  empty: {}
stages:
  rows: {kind: format, data: ./rows.jsonl}
  sft: {kind: train, base_model: org/name, data: rows}
"""

MATRIX = """\
stages:
  sft:
    kind: train
    base_model: org/name
    matrix:
      data: [./a.jsonl, ./b.jsonl]
      axolotl.lora_r, axolotl.lora_alpha: [[8, 16], [16, 32]]
      exclude: [{data: ./a.jsonl, axolotl.lora_r: 8}]
      max_parallel: 2
  best: {kind: select, of: sft, by: dev.sft.loss, mode: min}
"""

SCALARS = """\
stages:
  say: {kind: command, run: echo no, outputs: {o: o.txt}, env: {A: no, B: on, C: 1:30}, timeout: 5e2}
"""

EXTENDS = (
    f"{MODELINE}extends: ../base.yaml\nstages:\n  sft: {{axolotl: {{max_steps: 5}}, retries: 1}}\n"
)

SOUND = {
    "expressions": HEAD + EXPRESSIONS,
    "profiles": HEAD + PROFILES,
    "a matrix": HEAD + MATRIX,
    "scalars of YAML 1.2": HEAD + SCALARS,
    "extends": EXTENDS,
}


@pytest.fixture(scope="module")
def server() -> Iterator[LanguageServer]:
    """A running language server."""
    with LanguageServer(ROOT) as running:
        yield running


def cut(text: str) -> tuple[str, tuple[int, int]]:
    """Take the cursor, ‸, out of a text; return its line and column."""
    before, after = text.split("‸")
    return before + after, (before.count("\n"), len(before) - before.rfind("\n") - 1)


def found(server: LanguageServer, text: str) -> dict[int, list[str]]:
    """Return what the server finds wrong, by line, which counts from 1 as in an editor."""
    lines: dict[int, list[str]] = {}
    for item in server.diagnostics(FOLDER, text):
        lines.setdefault(item["range"]["start"]["line"] + 1, []).append(item["message"])
    return lines


def offered(server: LanguageServer, text: str) -> dict[str, Any]:
    """Return what is offered at the cursor."""
    return server.completions(FOLDER, *cut(text))


def shown(server: LanguageServer, text: str) -> str:
    """Return what is shown over the cursor."""
    return server.hover(FOLDER, *cut(text))


def test_every_example_names_its_schema() -> None:
    """The first line of each example leads an editor to the published schema."""
    assert EXAMPLES
    for path in EXAMPLES:
        line = path.read_text("utf-8").splitlines()[0]
        reference = line.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / reference).resolve() == ROOT / "schemas/spec.schema.json"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_an_example_shows_no_mistake(server: LanguageServer, path: Path) -> None:
    """Nothing is underlined in an example."""
    assert server.diagnostics(path.parent, path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_a_mistake_in_an_example_is_underlined(server: LanguageServer, path: Path) -> None:
    """A misspelled key in each stage is underlined at its line: the examples are really checked."""
    lines = path.read_text("utf-8").splitlines()
    first = lines.index("stages:")
    planted = [i for i, line in enumerate(lines) if i > first and line.startswith("    kind: ")]
    for i in reversed(planted):
        lines.insert(i + 1, "    timeut: 5")
    expected = {i + 2 + earlier for earlier, i in enumerate(planted)}
    diagnostics = server.diagnostics(path.parent, "\n".join(lines))
    assert {item["range"]["start"]["line"] + 1 for item in diagnostics} == expected
    assert {item["message"] for item in diagnostics} == {"Property timeut is not allowed."}


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND)
def test_what_a_person_may_write_shows_no_mistake(server: LanguageServer, text: str) -> None:
    """Expressions, profiles, matrices, extended specs and YAML 1.2's words pass."""
    assert found(server, text) == {}


@pytest.mark.parametrize(
    ("before", "after", "line", "message"),
    [
        ("retries:", "retires:", 13, "Property retires is not allowed."),
        ('retries: "${params.n}"', "retries: often", 13, 'Incorrect type. Expected "integer".'),
        ('to: "${params.to}"', "to: mesages", 10, 'Valid values: "alpaca", "completion"'),
        ("test: 0.1", "tset: 0.1", 11, "Property tset is not allowed."),
        ("kind: train", "kind: trian", 17, "Value is not accepted. Valid values:"),
        ("serve, model: sft,", "serve,", 30, 'Missing property "model"'),
        ("  chat:", "  Chat:", 30, "a stage id begins with a small letter"),
        ('launch: "${params.block}"', "launch: torchrun", 22, "must be a mapping, or a ${…}"),
        ("metrics: [loss,", "metrics: [lss,", 28, "Value is not accepted. Valid values:"),
        ('max_parallel: "${params.n}"', "max_paralel: 2", 23, "Expected one of array, string"),
    ],
)  # fmt: skip
def test_a_mistake_is_underlined_at_its_line(
    server: LanguageServer, before: str, after: str, line: int, message: str
) -> None:
    """A misspelled key, a wrong type, a word of no list: one mark, where it stands, in words."""
    assert before in HEAD + EXPRESSIONS
    wrong = found(server, (HEAD + EXPRESSIONS).replace(before, after))
    assert list(wrong) == [line]
    assert len(wrong[line]) == 1
    assert message in wrong[line][0]


@pytest.mark.parametrize(
    ("text", "before", "line"),
    [
        (HEAD + PROFILES, "axolotl:", 8),
        (HEAD + PROFILES, "launch:", 10),
        (EXTENDS, "axolotl:", 4),
        (HEAD + MATRIX, "base_model:", 7),
    ],
)
def test_a_misspelled_key_is_found_in_what_need_not_be_whole(
    server: LanguageServer, text: str, before: str, line: int
) -> None:
    """Profiles, extended specs and stages with a matrix are checked as closely."""
    assert before in text
    wrong = found(server, text.replace(before, "nonsense:", 1))
    assert wrong == {line: ["Property nonsense is not allowed."]}


def test_the_kinds_are_offered(server: LanguageServer) -> None:
    """At ``kind:`` stand all kinds, and at the start of a stage the word ``kind``."""
    assert offered(server, f"{HEAD}stages:\n  sft:\n    kind: ‸\n").keys() == KINDS.keys()
    assert "kind" in offered(server, f"{HEAD}stages:\n  sft:\n    ‸\n")


def test_the_fields_of_the_kind_are_offered(server: LanguageServer) -> None:
    """Inside a ``train`` stage stand its fields that are not there yet, each with its meaning."""
    stage = "stages:\n  sft:\n    kind: train\n    data: ./rows.jsonl\n    ‸\n"
    items = offered(server, HEAD + stage)
    assert {"base_model", "adapter_start", "axolotl", "launch", "timeout"} <= items.keys()
    assert not {"data", "quantize", "sources"} & items.keys()
    assert items["base_model"]["documentation"].startswith("The model to train: a hub id")
    assert items["launch"]["insertText"] == "launch:\n  "  # a block begins on its own line


def test_the_fields_of_the_method_are_offered(server: LanguageServer) -> None:
    """In a ``generate`` stage the methods, then the fields of the one that is named."""
    stage = f"{HEAD}stages:\n  rows:\n    kind: generate\n    method: "
    assert {"evol-instruct", "self-instruct"} <= offered(server, f"{stage}‸\n").keys()
    items = offered(server, f"{stage}self-instruct\n    ‸\n")
    assert {"seeds", "count", "human_examples", "blocked_words"} <= items.keys()
    assert "rounds" not in items


def test_a_field_of_another_method_is_underlined(server: LanguageServer) -> None:
    """One mark, at the field."""
    stage = (
        "stages:\n  rows:\n    kind: generate\n    method: self-instruct\n    seeds: ./a.jsonl\n"
        "    count: 2\n    rounds: 2\n"
        "    teacher: {engine: openai, model: m, base_url: http://h/v1}\n"
    )
    assert found(server, HEAD + stage) == {10: ["Property rounds is not allowed."]}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (HEAD + "stages:\n  sft:\n    kind: train\n    adapter_start: ‸\n", {"merge", "continue"}),
        (HEAD + "stages:\n  s:\n    kind: train\n    launch:\n      ‸\n", {"launcher", "env"}),
        (HEAD + "stages:\n  q:\n    kind: evaluate\n    metrics:\n      - ‸\n", {"loss", "rouge_l"}),
        (HEAD + "stages:\n  d:\n    kind: format\n    sources:\n      - ‸\n", {"data", "repeat"}),
        (HEAD + "profiles:\n  gpu:\n    stages:\n      s:\n        ‸\n", {"axolotl", "quantize"}),
        (MODELINE + "‸\n", {"version", "name", "params", "profiles", "stages", "extends"}),
    ],
)  # fmt: skip
def test_what_fits_is_offered_everywhere(
    server: LanguageServer, text: str, labels: set[str]
) -> None:
    """Words of a list, fields of nested blocks, of profiles, and of the spec itself."""
    assert labels <= offered(server, text).keys()


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("stages:\n  sft:\n    kind: train\n    base_mo‸del: a/b\n", "The model to train: a hub id"),
        ("stages:\n  s: {kind: train, launch: {launc‸her: python}}\n", "Axolotl's launcher"),
        ("stages:\n  s: {kind: train, resources: {cp‸us: 1}}\n", "CPU threads"),
        ("stages:\n  s‸ft: {kind: train}\n", "Fine-tune a model with Axolotl."),
        ("profiles:\n  gpu: {stages: {s: {axol‸otl: {}}}}\n", "Axolotl's own keys"),
        ("par‸ams: {}\n", "Values that stages use"),
    ],
)  # fmt: skip
def test_what_a_field_means_is_shown(server: LanguageServer, text: str, meaning: str) -> None:
    """The mouse over a field, a nested field or a stage shows its description."""
    assert meaning in shown(server, HEAD + text)
