"""What is suggested for a key or a value that a stage does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmpipe.errors import Problem, SpecError
from llmpipe.spec.read import read_spec

HEAD = "version: 1\nname: x\nstages:\n"
TRAIN = "  a: {{kind: train, base_model: ./b, data: ./r.jsonl, {}}}\n"
COMMAND = "  a: {{kind: command, run: x, outputs: {{o: o}}, {}}}\n"
RAG = "  a: {{kind: rag, index: i, {}}}\n"


def problem(folder: Path, text: str) -> Problem:
    """Return the only thing that is wrong with a spec."""
    (folder / "spec.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        read_spec(folder / "spec.yaml")
    (found,) = caught.value.problems
    return found


@pytest.mark.parametrize(
    ("stage", "hint"),
    [
        (TRAIN.format("matrix: {learning_rate: [1e-4]}"), "did you mean axolotl.learning_rate?"),
        (TRAIN.format("matrix: {lora_rank: [8]}"), "did you mean axolotl.lora_r?"),
        (TRAIN.format("adapter: lora"), "did you mean axolotl.adapter?"),
        (TRAIN.format("datset: {}"), "did you mean 'dataset'?"),
        (TRAIN.format("foo_bar: 1"), "a setting of Axolotl is written axolotl.foo_bar"),
        (COMMAND.format("gpus: 1"), "did you mean resources.gpus?"),
        (COMMAND.format("matrix: {cpus: [1, 2]}"), "did you mean resources.cpus?"),
        (COMMAND.format("inptus: {}"), "did you mean 'inputs'?"),
        (COMMAND.format("quux: 1"), "known: kind, "),
        (RAG.format("temperature: 1"), "did you mean generator.temperature?"),
    ],
)
def test_a_key_that_belongs_elsewhere(tmp_path: Path, stage: str, hint: str) -> None:
    """As an axis of a matrix, too: its whole path is named."""
    text = stage.replace(
        "index: i, ", "index: i, generator: {engine: openai, model: m, base_url: http://h/v1}, "
    )
    assert hint in str(problem(tmp_path, HEAD + text).hint)


def test_a_stage_beside_the_stages(tmp_path: Path) -> None:
    """It is indented too little."""
    found = problem(
        tmp_path, HEAD + COMMAND.format("freeze: false") + "b: {kind: command, run: x}\n"
    )
    assert found.hint == "a stage belongs under `stages:`, indented"


@pytest.mark.parametrize(
    ("stage", "written"),
    [
        (COMMAND.format("matrix: {env.LR: [0.01]}"), "0.01"),
        (COMMAND.format("matrix: {env.LR: [5e-4]}"), "5e-4"),
        (COMMAND.format("env: {N: 3}"), "3"),
        (COMMAND.format("env: {ON: true}"), "true"),
        (COMMAND.format("description: 007"), "007"),
        (
            RAG.format("embedder: 3").replace(
                "}", ", generator: {engine: openai, model: m, base_url: http://h/v1}}"
            ),
            "3",
        ),
    ],
)
def test_a_number_where_a_text_is_needed(tmp_path: Path, stage: str, written: str) -> None:
    """It is shown in quotes, as it was written."""
    assert problem(tmp_path, HEAD + stage).hint == f'write it in quotes: "{written}"'


def test_a_number_that_a_parameter_holds(tmp_path: Path) -> None:
    """The expression is in quotes already, and takes the parameter's type all the same."""
    head = HEAD.replace("stages:", "params: {lr: 0.01}\nstages:")
    stage = COMMAND.format('env: {LR: "${params.lr}"}')
    assert problem(tmp_path, head + stage).hint == "write the parameter's value in quotes"


@pytest.mark.parametrize(
    ("engine", "url"),
    [
        ("ollama", "http://localhost:11434/v1"),
        ("vLLM", "http://localhost:8000/v1"),
        ("LM Studio", "http://localhost:1234/v1"),
        ("llama-server", "http://localhost:8080/v1"),
        ("openrouter", "https://openrouter.ai/api/v1"),
    ],
)
def test_another_server_is_an_endpoint(tmp_path: Path, engine: str, url: str) -> None:
    """The name of a program looked like a mistyped llama.cpp."""
    for stage in (
        RAG.format(f"generator: {{engine: {engine}, model: m}}"),
        f"  a: {{kind: embed, chunks: c, model: m, engine: {engine}}}\n",
    ):
        found = problem(tmp_path, HEAD + stage)
        assert "did you mean" not in found.message
        assert found.hint == f"it speaks OpenAI's protocol: engine: openai with base_url: {url}"


def test_a_mistyped_engine_is_one(tmp_path: Path) -> None:
    """Our own engines are still suggested."""
    found = problem(tmp_path, HEAD + RAG.format("generator: {engine: llama-cpp, model: m}"))
    assert found.hint == "did you mean 'llama.cpp'?"
