"""The three engines embed: as plain sentence-transformers does, alone or in company, or say why not."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai_endpoint import Answer, Endpoint, letter_vector

from llmpipe.backends.openai import client as openai_client
from llmpipe.backends.openai import throttle as openai_throttle
from llmpipe.errors import StageError
from llmpipe.retrieval.embedders import (
    OpenedEmbedder,
    identify_endpoint,
    identify_folder,
    open_embedder,
)

pytestmark = pytest.mark.heavy

TEXTS = [
    "The pump starts when the tank is full.",
    "Never touch the valve.",
    "Der Tank ist leer. " * 12,
    "漢字 and emoji 👩‍👩‍👧‍👦",
    "The pump starts as soon as the tank is filled.",
]


@pytest.fixture(scope="module")
def torch_embedder(minilm: Path) -> Iterator[OpenedEmbedder]:
    """MiniLM by sentence-transformers, loaded while the network is out of reach."""

    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"nothing is to be fetched from {address}")

    identity = identify_folder("sentence-transformers", minilm, "d", label="minilm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        embedder = open_embedder(identity, model=minilm)
    with embedder:
        yield embedder


@pytest.fixture
def onnx_embedder(minilm: Path, minilm_int8: Path) -> Iterator[OpenedEmbedder]:
    """MiniLM by its int8 file."""
    identity = identify_folder("onnx", minilm, "d", label="minilm", weights="w")
    with open_embedder(identity, model=minilm, weights=minilm_int8, threads=2) as embedder:
        yield embedder


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the pauses between attempts short."""
    monkeypatch.setattr(openai_client, "BACK_OFF", (0.01, 0.01, 0.01, 0.01))
    monkeypatch.setattr(openai_throttle, "COOL_DOWN", 0.05)


def test_vectors_are_those_of_plain_sentence_transformers(
    torch_embedder: OpenedEmbedder, minilm: Path
) -> None:
    """Passages and questions equal the package's own encode up to the order of additions."""
    from sentence_transformers import SentenceTransformer

    plain = SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)
    told: list[int] = []
    ours = torch_embedder.embed_passages(TEXTS, told.append)
    assert ours.dtype == np.float32
    assert np.abs(ours - plain).max() < 1e-6
    assert np.abs(torch_embedder.embed_query(TEXTS[0]) - plain[0]).max() < 1e-6
    assert told[-1] == len(TEXTS)


def test_a_passage_is_never_cut_and_a_question_is(
    torch_embedder: OpenedEmbedder, onnx_embedder: OpenedEmbedder
) -> None:
    """A passage over 256 tokens is an error that shows it; a question is cut to what fits."""
    long = "pump " * 300
    for embedder in (torch_embedder, onnx_embedder):
        with pytest.raises(StageError, match=r"'pump pump .* has 302 tokens; minilm takes 256"):
            embedder.embed_passages(["short", long])
        cut = embedder.embed_query(long)
        assert np.abs(cut - embedder.embed_query("pump " * 254)).max() < 1e-6


def test_questions_together_are_those_one_by_one(
    torch_embedder: OpenedEmbedder, onnx_embedder: OpenedEmbedder
) -> None:
    """Up to the order of additions."""
    for embedder in (torch_embedder, onnx_embedder):
        singly = np.stack([embedder.embed_query(text) for text in TEXTS])
        assert np.abs(embedder.embed_queries(TEXTS) - singly).max() < 1e-6


def test_a_prefix_shapes_the_vector_of_its_side(minilm: Path, minilm_int8: Path) -> None:
    """A prefix is put before each text, as written; None takes what the model asks for: nothing."""

    def embed(**prefixes: str) -> tuple[np.ndarray, np.ndarray]:
        identity = identify_folder("onnx", minilm, "d", label="m", weights="w", **prefixes)  # type: ignore[arg-type]
        with open_embedder(identity, model=minilm, weights=minilm_int8) as embedder:
            return embedder.embed_passages(["oil"])[0], embedder.embed_query("oil")

    passage, query = embed()
    assert (passage == query).all()
    prefixed, asked = embed(passage_prefix="machine ", query_prefix="cooking ")
    with_words, _ = embed(passage_prefix="", query_prefix="")
    assert (with_words == passage).all()
    assert not np.allclose(prefixed, passage)
    assert not np.allclose(prefixed, asked)


def test_an_int8_vector_does_not_depend_on_its_company(
    onnx_embedder: OpenedEmbedder, torch_embedder: OpenedEmbedder
) -> None:
    """Alone, in any order, among others: the same to the bit, and close to the full model's."""
    together = onnx_embedder.embed_passages(TEXTS)
    backwards = onnx_embedder.embed_passages(TEXTS[::-1])[::-1]
    alone = np.stack([onnx_embedder.embed_passages([text])[0] for text in TEXTS])
    assert (together == backwards).all()
    assert (together == alone).all()
    assert (together * torch_embedder.embed_passages(TEXTS)).sum(axis=1).min() > 0.97
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_wrong_onnx_files(minilm: Path, minilm_int8: Path, tmp_path: Path) -> None:
    """No ONNX at all, another width, modules that the file leaves out: each is said at once."""

    def load(folder: Path, weights: Path) -> None:
        identity = identify_folder("onnx", folder, "d", label="m.onnx", weights="w")
        open_embedder(identity, model=folder, weights=weights).close()

    (tmp_path / "text.onnx").write_text("no protocol buffer")
    with pytest.raises(StageError, match=r"m\.onnx: not an ONNX model"):
        load(minilm, tmp_path / "text.onnx")
    other = tmp_path / "other"
    shutil.copytree(minilm, other, ignore=shutil.ignore_patterns("*.safetensors"))
    pooling = other / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"embedding_dimension": 768, "pooling_mode": "mean"}))
    with pytest.raises(StageError, match="vectors of 384 dimensions; the model other has 768"):
        load(other, minilm_int8)
    pooling.write_text(json.dumps({"embedding_dimension": 384, "pooling_mode": "weightedmean"}))
    with pytest.raises(StageError, match="other does more than pool") as caught:
        load(other, minilm_int8)
    assert caught.value.hint == "use the engine sentence-transformers"


def test_pickled_weights_are_refused(minilm: Path, tmp_path: Path) -> None:
    """A folder whose weights are a pickle is not opened at all."""
    folder = tmp_path / "pickled"
    shutil.copytree(minilm, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    identity = identify_folder("sentence-transformers", folder, "d", label="p")
    with pytest.raises(StageError, match=r"p: pytorch_model\.bin contains pickled weights"):
        open_embedder(identity, model=folder)


def endpoint_embedder(url: str, **options: Any) -> OpenedEmbedder:
    """Open the embedder behind a loopback endpoint."""
    dimension = options.pop("dimension", 0)
    identity = identify_endpoint("letters", url, dimension=dimension, passage_prefix="p: ")
    return open_embedder(identity, **options)


def test_an_endpoint_embeds_in_batches(no_waiting: None) -> None:
    """In order and scaled, with prefix and key, also after a 429."""

    def before(body: dict[str, Any], number: int) -> Answer | None:
        return (429, {"error": {"message": "slow down"}}, {}) if number == 1 else None

    texts = [f"text {'abc'[i % 3] * i}" for i in range(9)]
    with Endpoint(before) as endpoint:
        with endpoint_embedder(endpoint.url, batch_size=2, api_key="k3y") as embedder:
            found = embedder.embed_passages(texts)
        assert len(endpoint.received) == 6
        assert {body["encoding_format"] for body in endpoint.received} == {"float"}
        assert {headers["authorization"] for headers in endpoint.headers} == {"Bearer k3y"}
    expected = np.array([letter_vector(f"p: {text}") for text in texts], np.float32)
    assert np.allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_an_endpoint_s_failures(no_waiting: None) -> None:
    """Wrong dimension, uneven vectors, a refused key (not shown), a refused text (shown)."""
    with Endpoint() as endpoint:
        with (
            endpoint_embedder(endpoint.url, dimension=99) as embedder,
            pytest.raises(StageError, match="vectors of 26 dimensions, not 99"),
        ):
            embedder.embed_passages(["a"])
        endpoint.embed = lambda text: [1.0] * len(text)
        with (
            endpoint_embedder(endpoint.url) as embedder,
            pytest.raises(StageError, match=r"vectors of several lengths: \[4, 5\]"),
        ):
            embedder.embed_passages(["a", "bc"])

    with (
        Endpoint(lambda body, number: (401, {"error": {"message": "bad k3y"}}, {})) as endpoint,
        endpoint_embedder(endpoint.url, api_key="k3y") as embedder,
        pytest.raises(StageError, match=r"refuses the API key: bad \[key\]") as caught,
    ):
        embedder.embed_passages(["a"])
    assert caught.value.hint == "check model, base_url and api_key"

    def too_long(body: dict[str, Any], number: int) -> Answer | None:
        refused = any("long" in text for text in body["input"])
        return (400, {"error": {"message": "9000 tokens"}}, {}) if refused else None

    with (
        Endpoint(too_long) as endpoint,
        endpoint_embedder(endpoint.url) as embedder,
        pytest.raises(StageError, match=r"refuses the text 'p: long' .*9000 tokens"),
    ):
        embedder.embed_passages(["a", "long", "b"])
