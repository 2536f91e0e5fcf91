"""The embedder of an index: it comes with the index, is named, or is not needed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError
from llmpipe.retrieval.embedder import write_identity
from llmpipe.retrieval.embedders import identify_folder
from llmpipe.retrieval.factory import embed_questions, open_embedder_of

MODES = ("dense", "bm25")
QUESTIONS = ["When does it open?", "Who may park?"]


def index_of(folder: Path, minilm: Path, weights: Path, base: Artifact | None = None) -> Artifact:
    """Return an index that identifies its embedder and has its own ONNX file but no model."""
    identity = identify_folder("onnx", minilm, "right", label="minilm", weights="w")
    write_identity(folder / "embedder.json", identity)
    (folder / "model.onnx").symlink_to(weights)
    return Artifact(folder, "index", "i", "index", base=base)


@pytest.mark.heavy
def test_the_model_that_fits_is_taken(tmp_path: Path, minilm: Path, minilm_int8: Path) -> None:
    """The model that comes with the index is preferred to a named one for other indexes."""
    right = Artifact(minilm, "model", "right", "./minilm")
    wrong = Artifact(tmp_path, "model", "wrong", "./other")
    for number, (base, named) in enumerate([(right, wrong), (wrong, right), (right, None)]):
        (tmp_path / str(number)).mkdir()
        index = index_of(tmp_path / str(number), minilm, minilm_int8, base)
        known = embed_questions(index, named, MODES, QUESTIONS, threads=1, api_key=None)
        vectors = np.stack([known.embed_query(question) for question in QUESTIONS])
        assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
        assert known.identity.model == "minilm"
    stray = dataclasses.replace(index, base=None)
    with pytest.raises(
        StageError, match=r"index was embedded with minilm, and \./other is another"
    ):
        embed_questions(stray, wrong, MODES, QUESTIONS, threads=1, api_key=None)


@pytest.mark.heavy
def test_words_alone_need_no_embedder(tmp_path: Path, minilm: Path, minilm_int8: Path) -> None:
    """Not even an existing one is loaded."""
    index = index_of(tmp_path, minilm, minilm_int8)
    with open_embedder_of(index, None, ("bm25",), threads=1, api_key=None) as embedder:
        assert embedder.identity.model == "minilm"
    known = embed_questions(index, None, ("bm25",), QUESTIONS, threads=1, api_key=None)
    assert known.identity == embedder.identity
    with pytest.raises(StageError, match="does not say where its embedder is"):
        embed_questions(index, None, MODES, QUESTIONS, threads=1, api_key=None)
