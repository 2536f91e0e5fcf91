"""Rows are followed from their seeds to the models, and back, through a real generation and its stages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process import llmpipe as call
from openai_endpoint import Endpoint

import llmpipe
from llmpipe.api.pipeline import Pipeline
from llmpipe.api.trace import MOST
from llmpipe.errors import StoreError, UsageError
from llmpipe.formats.provenance import row_id

SPEC = """\
version: 1
name: traced
stages:
  made:
    kind: generate
    method: evol-instruct
    teacher: {engine: openai, model: m, base_url: URL}
    seeds: ./seeds.jsonl
    map: {user: q}
    rounds: 1
    count: 4
  clean: {kind: curate, data: [./own.jsonl, made], steps: [{step: refusals}]}
  dataset: {kind: format, data: clean, to: messages, split: {test: 1}}
  drawn: {kind: format, sources: [{data: clean, sample: 1}], to: messages}
  sft: {kind: train, base_model: ./small, data: dataset, axolotl: {adapter: lora, max_steps: 1, learning_rate: 1e-4}}
  merged: {kind: merge, adapter: sft}
  quality: {kind: evaluate, models: [sft], data: dataset.test}
"""

REFUSED = "I'm sorry, but as an AI language model I cannot help with that."
HOSTILE = "Łódź \u202e <script>alert(1)</script> \x1b[31m" + "x" * 5000


def chat(question: str, answer: str) -> dict[str, Any]:
    """A row of a person's own."""
    turns = [("user", question), ("assistant", answer)]
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


OWN = [chat("What is in box 7?", HOSTILE), chat("Help me.", REFUSED), chat("Where?", "In Oslo.")]


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline, run up to the rows; nothing is trained."""
    folder = tmp_path_factory.mktemp("traced")
    seeds = [{"q": f"How heavy is item {number}?"} for number in range(6)]
    for name, rows in (("seeds", seeds), ("own", OWN)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "small").mkdir()
    (folder / "small" / "config.json").write_text("{}")

    def first_is_no_text(body: dict[str, Any], number: int) -> Any:
        message = {"role": "assistant", "content": "?!"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return (200, {"id": "1", "choices": [choice]}, {}) if number == 1 else None

    with Endpoint(first_is_no_text) as endpoint:
        (folder / "spec.yaml").write_text(SPEC.replace("URL", endpoint.url))
        pipe = llmpipe.load(folder / "spec.yaml")
        pipe.run(only=["dataset", "drawn"], progress=False)
    yield pipe
    pipe.close()


@pytest.mark.slow
def test_a_generated_row_leads_back_to_its_seed_and_on_to_the_models(pipe: Pipeline) -> None:
    """Seed, method, operator, teacher; every artifact with it; the training and what comes of it."""
    trace = pipe.trace("made", 2)
    assert trace.row.made["method"] == "evol-instruct"
    assert trace.row.made["teacher"]["model"] == "m"
    assert len(trace.row.made["operators"]) == 1
    (seed,) = trace.made_from.first
    assert seed.artifact == "./seeds.jsonl"
    assert trace.parents == [seed.id]
    counts = trace.places.counts
    assert (counts["made.rows"], counts["clean.rows"], counts["dataset.train"]) == (1, 1, 1)
    (use,) = trace.models
    assert (use.stage, use.reads, use.trains, use.made) == ("sft", "dataset.train", True, False)
    assert use.models == ("merged",)
    by_id = pipe.trace("dataset", str(trace.row.id)[:12])
    assert by_id.row.id == trace.row.id
    assert by_id.places == trace.places


@pytest.mark.slow
def test_a_seed_leads_to_all_rows_made_of_it(pipe: Pipeline) -> None:
    """A file is named by the stage that reads it. What a generation rejected is traced, too."""
    seed = pipe.trace("made", 1).made_from.first[0]
    trace = pipe.trace("made.seeds", seed.line)
    assert trace.row.id == seed.id
    assert pipe.trace("made", str(seed.id)).row == trace.row
    made = [row for row in pipe.rows("made") if seed.id in row["llmpipe_provenance"]["parents"]]
    assert trace.made_of_it.counts["made.rows"] == len(made) > 0
    assert all(use.descendants for use in trace.models)
    (reject,) = pipe.rows("made.rejects")
    rejected = pipe.trace("made.rejects", 1)
    assert rejected.row.id is None
    assert rejected.row.rejected is not None
    assert rejected.row.rejected["reason"] == reject["reason"]
    assert rejected.parents == reject["parents"]
    assert [place.artifact for place in rejected.made_from.first] == ["./seeds.jsonl"]
    assert rejected.models == []


@pytest.mark.slow
def test_dropped_rows_say_by_which_rule(pipe: Pipeline) -> None:
    """A reject names its stage's rule; one that `sample` left out is noted; a held-out row too."""
    refused = pipe.trace("clean.rejects", 1)
    assert refused.places.counts == {"./own.jsonl": 1, "clean.rejects": 1}
    assert [p.rejected["rule"] for p in refused.places.first if p.rejected] == ["refusal"]
    assert refused.models == []
    held = pipe.trace("dataset.test", 1)
    assert [(use.stage, use.trains) for use in held.models] == [("quality", False)]
    drawn = pipe.trace("drawn", 1).row.id
    other = next(n for n in range(1, 7) if pipe.trace("clean", n).row.id != drawn)
    assert any("`sample` left it out" in note for note in pipe.trace("clean", other).notes)


@pytest.mark.slow
def test_rows_that_are_not_there(pipe: Pipeline) -> None:
    """Each mistake says what there is."""
    for artifact, row, said in (
        ("made", 0, "numbered by their lines"),
        ("made", -1, "numbered by their lines"),
        ("made", 99, "no row in line 99"),
        ("made", "abc", "does not tell which row"),
        ("made", "9" * 5000, "begins with '9999"),
        ("sft", 1, "has no rows"),
        ("mde", 1, "has no stage 'mde'"),
    ):
        with pytest.raises(UsageError, match=said):
            pipe.trace(artifact, row)
    with pytest.raises(StoreError, match="not up to date"):
        pipe.trace("quality.predictions", 1)


@pytest.mark.slow
def test_the_command_prints_it(pipe: Pipeline) -> None:
    """For people without control characters, and as JSON that a program reads."""
    folder = pipe.graph.spec.path.parent
    own = row_id(OWN[0])
    told = call(folder, "trace", "spec.yaml", "clean", own[:8])
    assert told.returncode == 0, told.stderr
    assert "\x1b" not in told.stdout
    assert f"clean.rows:1  {own}" in told.stdout
    assert "warning: quality is not searched" in told.stderr
    data = json.loads(call(folder, "trace", "spec.yaml", "clean", "1", "--json").stdout)
    assert data["row"]["id"] == own
    assert data["places"]["counts"]["./own.jsonl"] == 1
    assert call(folder, "trace", "spec.yaml", "clean", "nothing").returncode == 2


@pytest.mark.slow
def test_many_rows_are_counted_and_lines_that_are_none(tmp_path: Path) -> None:
    """Only the first of each artifact are held; what cannot be read is counted by its reason."""
    row = json.dumps(chat("How?", "So."))
    (tmp_path / "own.jsonl").write_text(f"{row}\n" * (MOST + 5) + "[1]\n\n")
    (tmp_path / "spec.yaml").write_text(
        "version: 1\nname: many\nstages:\n"
        "  dataset: {kind: format, data: ./own.jsonl, to: messages, max_rejects: 1}\n"
    )
    pipe = llmpipe.load(tmp_path / "spec.yaml")
    pipe.run(progress=False)
    trace = pipe.trace("dataset", 1)
    assert trace.places.counts["./own.jsonl"] == MOST + 5
    assert sum(place.artifact == "./own.jsonl" for place in trace.places.first) == MOST
    assert any(note.startswith("./own.jsonl: 1 line cannot") for note in trace.notes)
