"""Searching: what is found, why and in which order; filters, variety, and errors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hashed_words import HashedWords, document, write_embeddings
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import StageError
from llmpipe.retrieval.fusion import ALPHA
from llmpipe.retrieval.index import IndexSettings, build_index
from llmpipe.retrieval.search import Mode, Retriever

pytestmark = pytest.mark.heavy

TEXTS = {
    "cats": "cats sleep on warm roofs",
    "cats again": "cats sleep on warm roofs today",
    "dogs": "dogs run in the park",
    "install": "installing the program needs python",
    "remove": "removing the program needs nothing",
    "error": "error E4711 means that the disk is full",
    "roofs": "roofs are made of slate",
    "birds": "birds sleep in trees",
}
NAMES = list(TEXTS)
DOCUMENTS = [
    document(name, text, letters=len(text), animal=name[:4] in ("cats", "dogs", "bird"))
    for name, text in TEXTS.items()
]
MODES: tuple[Mode, ...] = ("hybrid", "dense", "bm25")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of eight passages."""
    folder = tmp_path_factory.mktemp("search")
    embeddings = write_embeddings(folder / "embeddings", DOCUMENTS)
    build_index(embeddings, folder / "index", IndexSettings())
    return folder / "index"


@pytest.fixture(scope="module")
def retriever(index: Path) -> Retriever:
    """The index with its embedder."""
    return Retriever.open(index, HashedWords())


def names(hits: Sequence[object]) -> list[str]:
    """Return what was found, in order."""
    return [hit.chunk.document for hit in hits]  # type: ignore[attr-defined]


def test_by_meaning(retriever: Retriever) -> None:
    """Ordered by the cosine of the question and each passage, which is reported."""
    embedder = HashedWords()
    question = "cats sleep on warm roofs"
    hits = retriever.search(question, k=3, mode="dense")
    cosines = embedder.embed_passages(list(TEXTS.values())) @ embedder.embed_query(question)
    assert [hit.row for hit in hits] == np.argsort(-cosines)[:3].tolist()
    assert [hit.score for hit in hits] == pytest.approx(sorted(cosines)[::-1][:3], abs=1e-5)
    assert hits[0].dense_score == hits[0].score == pytest.approx(1, abs=1e-5)
    assert [(hit.rank, hit.dense_rank, hit.bm25_rank) for hit in hits] == [
        (1, 1, None),
        (2, 2, None),
        (3, 3, None),
    ]
    assert {hit.bm25_score for hit in hits} == {None}


def test_by_words(retriever: Retriever) -> None:
    """Forms of a word are equal; without shared words nothing is found; nothing is embedded."""
    hits = retriever.search("the install of programs", mode="bm25")
    assert names(hits) == ["install", "remove"]
    assert hits[0].score == hits[0].bm25_score
    assert [(hit.bm25_rank, hit.dense_rank, hit.dense_score) for hit in hits] == [
        (1, None, None),
        (2, None, None),
    ]
    assert retriever.search("what is xyzzy?", mode="bm25", k=1) == []


def test_by_both(retriever: Retriever) -> None:
    """The fused score is computed from both scores; each hit has both, and its ranks."""
    hits = retriever.search("E4711 disk", k=8)
    assert names(hits)[0] == "error"
    assert (hits[0].dense_rank, hits[0].bm25_rank, hits[0].score) == (1, 1, pytest.approx(1))
    cosines = [hit.dense_score or 0 for hit in hits]
    words = [hit.bm25_score or 0 for hit in hits]
    for hit, cosine, word in zip(hits, cosines, words, strict=True):
        near = (cosine - min(cosines)) / (max(cosines) - min(cosines))
        assert hit.score == pytest.approx(ALPHA * near + (1 - ALPHA) * word / max(words), abs=1e-6)
    assert [hit.rank for hit in hits] == list(range(1, 9))
    by_words_first = retriever.search("program slate", k=8, alpha=0)
    assert names(by_words_first)[0] == "roofs"


def test_by_both_places(retriever: Retriever) -> None:
    """Reciprocal rank fusion uses only the ranks."""
    hits = retriever.search("E4711 disk", k=8, fusion="rrf")
    assert names(hits)[0] == "error"
    first = hits[0]
    assert (first.dense_rank, first.bm25_rank) == (1, 1)
    assert first.score == pytest.approx(2 / 61)
    for hit in hits:
        ranks = [rank for rank in (hit.dense_rank, hit.bm25_rank) if rank]
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
        assert hit.dense_score is not None
        assert (hit.bm25_score or 0) > 0 or hit.bm25_rank is None
    assert [hit.rank for hit in hits] == list(range(1, 9))


def test_what_only_words_found_has_its_cosine_too(retriever: Retriever) -> None:
    """A hit has a score for each ranking, even if a ranking does not contain it."""
    hits = retriever.search("disk? full? cats", k=2, fetch=2, alpha=0.2)
    only_words = [hit for hit in hits if hit.dense_rank is None]
    assert names(only_words) == ["error"]
    assert only_words[0].dense_score is not None


@pytest.mark.parametrize("mode", MODES)
def test_filters_come_before_ranking(mode: Mode, retriever: Retriever) -> None:
    """With only one passage fetched, it is still the best of those allowed."""
    question = "cats sleep on warm roofs"
    hits = retriever.search(question, k=1, fetch=1, mode=mode, filters={"document": "[rb]*"})
    assert names(hits)[0] in ("roofs", "birds")
    within = {"animal": True, "letters": {"max": 24}}
    assert set(names(retriever.search("sleep cats dogs", mode=mode, filters=within))) <= {
        "cats",
        "dogs",
        "birds",
    }
    nowhere = {"document": "no such document"}
    assert retriever.search(question, mode=mode, filters=nowhere) == []
    section = {"section": "About dogs"}
    assert names(retriever.search("dogs", mode=mode, filters=section)) == ["dogs"]


def test_variety(retriever: Retriever) -> None:
    """The near copy ranks lower; a trade-off of one changes nothing."""
    question = "cats sleep on warm roofs"
    assert names(retriever.search(question, k=2)) == ["cats", "cats again"]
    varied = retriever.search(question, k=2, mmr=0.3)
    assert names(varied)[0] == "cats"
    assert names(varied)[1] != "cats again"
    assert [hit.rank for hit in varied] == [1, 2]
    assert retriever.search(question, mmr=1.0) == retriever.search(question)
    with pytest.raises(StageError, match="it goes from 0"):
        retriever.search(question, mmr=2)


def test_a_reranker_has_the_last_word(retriever: Retriever) -> None:
    """It sees what was found, and its order is final; it may raise lower passages."""

    class Shortest:
        """Prefers short passages."""

        def scores(self, question: str, passages: Sequence[str]) -> list[float]:
            assert question == "sleep"
            return [-float(len(passage)) for passage in passages]

    hits = retriever.search("sleep", k=2, reranker=Shortest())
    shortest = sorted(NAMES, key=lambda name: len(TEXTS[name]))
    assert names(hits) == shortest[:2]
    assert [hit.rerank_score for hit in hits] == [hit.score for hit in hits]
    assert hits[0].score == -len(TEXTS[shortest[0]])
    behind = retriever.search("sleep", k=1, fetch=2, reranker=Shortest())
    assert names(behind)[0] in names(retriever.search("sleep", k=2, fetch=2))


@given(st.text(min_size=1), st.sampled_from(MODES), st.integers(1, 10), st.integers(1, 10))
def test_any_question(retriever: Retriever, question: str, mode: Mode, k: int, fetch: int) -> None:
    """At most as many hits as requested, each once, best first, and always the same."""
    if not question.strip():
        return
    hits = retriever.search(question, k=k, mode=mode, fetch=fetch)
    assert len(hits) <= k
    assert len({hit.row for hit in hits}) == len(hits)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits == retriever.search(question, k=k, mode=mode, fetch=fetch)
    if mode != "bm25":
        assert len(hits) == min(k, len(TEXTS))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("question", ["", "  \n\t"])
def test_an_empty_question_is_refused(question: str, mode: Mode, retriever: Retriever) -> None:
    """In every mode."""
    with pytest.raises(StageError, match="the question is empty"):
        retriever.search(question, mode=mode)


def test_broken_bytes_of_a_command_line_are_no_traceback(retriever: Retriever) -> None:
    """They arrive as lone surrogates."""
    assert names(retriever.search("dogs park \udcff", mode="bm25")) == ["dogs"]


def test_a_question_of_100_000_characters_is_quick(retriever: Retriever) -> None:
    """Its beginning still counts."""
    begin = time.process_time()
    hits = retriever.search("dogs park " * 10_000, k=1)
    assert time.process_time() - begin < 1
    assert names(hits) == ["dogs"]


def test_an_index_without_words_is_searched_by_meaning_alone(tmp_path: Path) -> None:
    """The other modes say what to do; the index says which modes it has."""
    embeddings = write_embeddings(tmp_path / "embeddings", DOCUMENTS)
    build_index(embeddings, tmp_path / "index", IndexSettings(bm25=None))
    retriever = Retriever.open(tmp_path / "index", HashedWords())
    assert retriever.modes == ("dense",)
    assert names(retriever.search("dogs run in the park", k=1, mode="dense")) == ["dogs"]
    for mode in ("hybrid", "bm25"):
        with pytest.raises(StageError, match="built without BM25") as caught:
            retriever.search("dogs", mode=mode)
        assert "bm25: true" in (caught.value.hint or "")


def test_another_embedder_is_refused(index: Path) -> None:
    """The message has both names and the differing fields; a new label alone is allowed."""
    with pytest.raises(StageError) as caught:
        Retriever.open(index, HashedWords(model="./other", digest="2", query_prefix="query: "))
    message = caught.value.message
    assert "built with ./hashed-words" in message
    assert "embedded with ./other" in message
    assert "digest: '1' → '2'" in message
    assert "query_prefix: '' → 'query: '" in message
    assert "pooling" not in message
    Retriever.open(index, HashedWords(model="/the/same/elsewhere"))


def test_a_single_passage(tmp_path: Path) -> None:
    """The smallest possible index."""
    embeddings = write_embeddings(tmp_path / "embeddings", DOCUMENTS[:1])
    build_index(embeddings, tmp_path / "index", IndexSettings())
    retriever = Retriever.open(tmp_path / "index", HashedWords())
    for mode in MODES:
        assert names(retriever.search("cats", mode=mode)) == ["cats"]


def test_an_update_answers_as_a_fresh_build(tmp_path: Path) -> None:
    """One document is removed, one changed, one added: the index equals a new one."""
    after = [*DOCUMENTS[1:4], document("dogs2", "dogs bark"), *DOCUMENTS[5:]]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        embeddings = write_embeddings(folder / "embeddings", after)
        build_index(embeddings, folder / "index", IndexSettings())
    one, two = (Retriever.open(folder / "index", HashedWords()) for folder in folders)
    for question in TEXTS.values():
        assert one.search(question) == two.search(question)
    assert "cats" not in names(one.search(TEXTS["cats"], k=10))


def test_threads_search_at_the_same_time(retriever: Retriever) -> None:
    """Each gets the answer to its own question."""
    questions = list(TEXTS.values()) * 20
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda question: names(retriever.search(question, k=1)), questions)
    assert [name for (name,) in found] == NAMES * 20
