"""A cross-encoder in a search: its scores decide the order, and other models are refused.

No package contains a trained one. These are tiny and random: their order has no meaning, and the
tests get the expected order from the model itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hashed_words import HashedWords, document, write_embeddings

from llmpipe.errors import StageError
from llmpipe.retrieval.index import IndexSettings, build_index
from llmpipe.retrieval.rerank import CrossEncoder
from llmpipe.retrieval.search import Retriever

pytestmark = pytest.mark.heavy

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "cats", "dogs", "run", "sleep", "in", "the", "park", "on", "roofs"]
PASSAGES = [
    "cats sleep on roofs",
    "dogs run",
    "the park",
    "dogs sleep in the park",
    "unknown words",
]


def cross_encoder(folder: Path, labels: int = 1) -> Path:
    """Write a random BERT of one layer that takes 32 tokens."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=labels,
        initializer_range=1.0,
    )
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, built once."""
    return cross_encoder(tmp_path_factory.mktemp("rerank") / "model")


def test_scores_are_the_models_own(folder: Path) -> None:
    """Those that transformers returns pair by pair, whatever the batches and the padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    passages = [*PASSAGES, *(f"{passage} {passage}" for passage in PASSAGES)] * 2  # two batches
    with torch.inference_mode():
        expected = [
            float(model(**tokenizer("cats", passage, return_tensors="pt")).logits[0, 0])
            for passage in passages
        ]
    scores = CrossEncoder(folder).scores("cats", passages)
    assert scores == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 3) for score in expected}) > 5  # they do differ
    assert CrossEncoder(folder).scores("cats", []) == []


def test_a_search_follows_it(folder: Path, tmp_path: Path) -> None:
    """The search returns its order of what was found."""
    documents = [document(str(n), text) for n, text in enumerate(PASSAGES)]
    embeddings = write_embeddings(tmp_path / "embeddings", documents)
    build_index(embeddings, tmp_path / "index", IndexSettings())
    retriever = Retriever.open(tmp_path / "index", HashedWords())
    reranker = CrossEncoder(folder)
    hits = retriever.search("cats sleep", reranker=reranker)
    scores = reranker.scores("cats sleep", PASSAGES)
    order = sorted(range(len(PASSAGES)), key=lambda n: -scores[n])
    assert [hit.row for hit in hits] == order
    assert [hit.row for hit in retriever.search("cats sleep")] != order
    assert [hit.score for hit in hits] == pytest.approx([scores[n] for n in order], abs=1e-4)


def test_pairs_that_are_too_long_are_cut(folder: Path) -> None:
    """Whether the question, the passage or both are too long."""
    scores = CrossEncoder(folder).scores("cats " * 20_000, ["dogs " * 100, "dogs"])
    assert len(scores) == 2


def test_what_is_no_reranker_is_refused(tmp_path: Path) -> None:
    """A folder without weights; a classifier with three classes."""
    with pytest.raises(StageError, match="no weights as safetensors"):
        CrossEncoder(tmp_path)
    with pytest.raises(StageError, match="returns 3 scores per pair"):
        CrossEncoder(cross_encoder(tmp_path / "three", labels=3))
