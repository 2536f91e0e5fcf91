"""A GGUF and the folder that it was made of are asked, decoded and judged alike, thinking or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scripted_model import KNOWS_THINKING, OPENS_THINKING, PLAIN, write_gguf, write_model

from llmpipe.contracts import Artifact, StageContext
from llmpipe.formats.records import write_rows
from llmpipe.stages.evaluate import Evaluate, EvaluateConfig

pytestmark = pytest.mark.heavy

LEAKS = {
    "do_sample": True,
    "temperature": 1.5,
    "top_k": 3,
    "top_p": 0.5,
    "repetition_penalty": 1.8,
    "no_repeat_ngram_size": 1,
    "min_new_tokens": 30,
    "suppress_tokens": [2],
    "num_beams": 2,
    "penalty_repeat": 1.8,
    "penalty_last_n": 64,
    "mirostat": 2,
}
"""Settings of a model that would each make another answer; the last three are llama.cpp's names."""

ROW = {"instruction": "Is it Paris?", "output": "<think>\nHm.\n</think>\n\nParis it is"}

Evaluated = tuple[dict[str, Any], list[dict[str, Any]], list[str]]


@pytest.fixture
def compared(tiny_llama: Path, tools_dir: Path, tmp_path: Path) -> Callable[..., Any]:
    """Make a folder and its GGUF, to be compared as often as a test wants."""

    def made(text: str, **settings: Any) -> Callable[..., Evaluated]:
        folder = write_model(tmp_path / "model", tiny_llama, text, **settings)
        gguf = write_gguf(folder, tmp_path / "work", tools_dir)
        known = {
            "hf": Artifact(folder, "model", "", "hf"),
            "gguf": Artifact(gguf, "gguf", "", "gguf"),
            "d": Artifact(tmp_path / "rows.jsonl", "records", "", "rows.jsonl"),
            "s": Artifact(tmp_path / "schema.json", "file", "", "schema.json"),
        }
        write_rows(tmp_path / "rows.jsonl", [ROW])

        def run(**fields: Any) -> Evaluated:
            given = {"kind": "evaluate", "models": ["hf", "gguf"], "data": "d", **fields}
            config = msgspec.convert(given, EvaluateConfig)
            ports = Evaluate.ports(config).inputs
            inputs = {name: known[port.value] for name, port in ports.items()}
            out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
            out.mkdir()
            events: list[Any] = []
            ctx = StageContext(
                config, "q", inputs, out, tmp_path, tmp_path, tmp_path, tmp_path, 1, events.append
            )
            result = Evaluate.run(ctx)
            metrics = json.loads(result.outputs["metrics"].read_text("utf-8"))
            lines = result.outputs["predictions"].read_text("utf-8").splitlines()
            warnings = [str(event) for event in events if event["event"] == "warning"]
            return metrics, list(map(json.loads, lines)), warnings

        return run

    return made


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("Hm, let us see</think> Paris it is<|im_end|>", {"template": OPENS_THINKING}),
        (
            "<think>Hm, let us see</think> Paris it is<|im_end|>",
            {"template": KNOWS_THINKING, "added": ("<think>", "</think>")},
        ),
        (
            "[THINK]Hm, let us see[/THINK] Paris it is<|im_end|>",
            {"template": PLAIN, "added": ("[THINK]", "[/THINK]"), "special": True},
        ),
    ],
    ids=["opened by the template", "opened by the model", "special tokens"],
)
def test_a_thinking_model_answers_alike(
    compared: Callable[..., Any], text: str, settings: dict[str, Any]
) -> None:
    """Regression: llama.cpp took thinking away and stripped the answer, transformers did neither.

    Nor do settings of the folder, which each engine obeys in part, change what is greedy.
    """
    run = compared(text, rivals={" Paris": " Rome"}, generation=LEAKS, **settings)
    metrics, [row], warnings = run(metrics=["loss", "rouge_l", "exact_match"])
    thought = "Hm, let us see"
    assert row["answers"] == {"hf": "Paris it is", "gguf": "Paris it is"}
    assert row["reference"] == "Paris it is"
    assert row["reasoning"] == {"hf": thought, "gguf": thought, "reference": "Hm."}
    models = metrics["models"]
    assert models["hf"]["exact_match"]["mean"] == models["gguf"]["exact_match"]["mean"] == 1
    assert "loss" in models["hf"]
    counts = metrics["replies"]
    assert counts["hf"] == counts["gguf"]
    assert counts["hf"]["with_reasoning"] == counts["references"]["with_reasoning"] == 1
    assert counts["hf"]["ends"] == ["<|endoftext|>", "<|im_end|>", "<reponame>"]
    assert "greedy" in metrics["method"]["decoding"]
    assert warnings == []
    metrics, [row], warnings = run(metrics=["exact_match"], max_new_tokens=4)
    assert row["answers"] == {"hf": "", "gguf": ""}
    assert row["reasoning"]["hf"] == row["reasoning"]["gguf"] != ""
    for label in ("hf", "gguf"):
        assert metrics["models"][label]["exact_match"]["mean"] == 0
        assert metrics["replies"][label]["cut_in_reasoning"] == 1
        assert any(f"{label}: 1 of 1 replies end inside" in told for told in warnings)


def test_a_gguf_that_reads_other_tokens_is_told_of(
    compared: Callable[..., Any], tmp_path: Path
) -> None:
    """One that somebody else made may have another template; its answers are not set beside unsaid."""
    run = compared("Paris it is<|im_end|>")
    template = tmp_path / "model" / "chat_template.jinja"
    template.write_text("Answer shortly.\n" + template.read_text("utf-8"), "utf-8")
    _, _, [warning] = run(metrics=["exact_match"])
    assert "gguf tokenizes the questions differently from hf: 1 of the first 1 rows" in warning


def test_a_text_may_speak_of_a_closing_tag(compared: Callable[..., Any], tmp_path: Path) -> None:
    """Regression: a reference lost what stands before a tag that it speaks of."""
    run = compared("Paris it is<|im_end|>")
    said = "Use `</think>` to close. Done"
    write_rows(tmp_path / "rows.jsonl", [{"instruction": "?", "output": said}])
    metrics, [row], [warning] = run(models=["hf"], metrics=["exact_match"])
    assert row["reference"] == said
    assert metrics["replies"]["references"]["with_reasoning"] == 0
    assert "1 references contain a closing tag" in warning
    assert said in warning


def test_a_schema_holds_the_answer_and_not_the_reasoning(
    compared: Callable[..., Any], tmp_path: Path
) -> None:
    """The model thinks as it likes, then writes what the schema allows, and no more tokens."""
    run = compared("Hm, let us see</think> Paris<|im_end|>", template=OPENS_THINKING)
    write_rows(tmp_path / "rows.jsonl", [{"instruction": "?", "output": '"no"'}])
    (tmp_path / "schema.json").write_text('{"enum": ["no"]}')
    fields = {"models": ["gguf"], "json_schema": "s", "metrics": ["json_match"]}
    metrics, [row], _ = run(**fields)
    assert row["answers"] == {"gguf": '"no"'}
    assert row["reasoning"] == {"gguf": "Hm, let us see"}
    assert metrics["models"]["gguf"]["json_match"]["mean"] == 1
    metrics, [row], _ = run(**fields, max_new_tokens=10)
    assert metrics["replies"]["gguf"]["cut"] == 1
    assert row["answers"]["gguf"] != '"no"'
