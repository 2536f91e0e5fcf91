"""How much of a text an embedder can read, and how unreadable text is handled."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hashed_words import HashedWords, document, write_embeddings

from llmpipe.backends.embedders.folder import load_tokenizer
from llmpipe.errors import StageError
from llmpipe.retrieval.bm25 import Bm25, Bm25Settings
from llmpipe.retrieval.chunks import Chunk
from llmpipe.retrieval.index import IndexSettings, build_index
from llmpipe.retrieval.reading import Reader, Reading
from llmpipe.retrieval.search import ENOUGH_WORDS, Retriever
from llmpipe.retrieval.survey import Survey
from llmpipe.retrieval.threshold import unrelated_questions
from llmpipe.retrieval.vectors import write_unread

pytestmark = pytest.mark.heavy

THAI = "ห้องสมุดเทศบาลเปิดวันธรรมดา"


@pytest.fixture(scope="module")
def reader(minilm: Path) -> Reader:
    """The reader of the default embedder."""
    return Reader(load_tokenizer(minilm))


@pytest.mark.parametrize(
    ("text", "unknown", "spelled"),
    [
        ("The library is open from nine.", 0, 0),
        ("Die Bücherei öffnet um neun; où est-ce?", 0, 0),
        (THAI, 1, 0),
        (f"rows.csv {THAI}", 0.77, 0.14),
        ("", 0, 0),
        ("Δ is read 😀", 0.25, 0),
        ("Привет из библиотеки", 0, 1),
        ("تفتح المكتبة أبوابها", 0, 1),
        ("도서관은 열려", 0, 1),
    ],
)
def test_what_the_default_embedder_reads(
    reader: Reader, text: str, unknown: float, spelled: float
) -> None:
    """Its own scripts as a whole; others letter by letter or not at all, even if in few tokens."""
    (reading,) = reader.read([text])
    assert reading.unknown_share == pytest.approx(unknown, abs=0.02)
    assert reading.spelled_share == pytest.approx(spelled, abs=0.1)


@pytest.mark.parametrize("kind", ["unigram", "wordlevel", "bpe"])
def test_every_kind_of_tokenizer_says_what_it_does_not_know(kind: str) -> None:
    """Each kind stores its unknown token in another place; byte-level ones have none."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = {
        "unigram": lambda: Tokenizer(models.Unigram([("<u>", 0.0), ("pump", -1.0)], unk_id=0)),
        "wordlevel": lambda: Tokenizer(models.WordLevel({"<u>": 0, "pump": 1}, unk_token="<u>")),
        "bpe": lambda: Tokenizer(models.BPE(vocab={"x": 0}, merges=[])),
    }[kind]()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    known, unknown = Reader(tokenizer).read(["pump pump", "qqq zzz"])
    assert known.unknown_share == 0
    assert unknown.unknown_share == (0 if kind == "bpe" else 1)


def survey(*shares: tuple[int, int]) -> Survey:
    """Return a survey of chunks with a given share of unknown tokens."""
    made = Survey()
    for unknown, tokens in shares:
        made.add(Reading(tokens, unknown), Chunk("c", "a.csv#2", 0, 4, THAI, tokens))
    return made


def test_a_collection_that_cannot_be_read_is_refused_unless_allowed() -> None:
    """It warns from 5 % on and needs a setting from one half on; the message says what to do."""
    said: list[str] = []
    survey((1, 100)).check("M", "refuse", said.append)
    assert said == []
    survey((6, 100), (0, 1)).check("M", "refuse", said.append)
    assert "M does not know 5.9% of the text" in said.pop()
    with pytest.raises(StageError, match=r"M cannot read 50% of the text.*a\.csv#2.*ห้อง") as caught:
        survey((10, 10), (0, 10)).check("M", "refuse", said.append)
    assert "mode: bm25" in (caught.value.hint or "")
    survey((10, 10), (0, 10)).check("M", "allow", said.append)
    assert "cannot read 1 of 2 chunks" in said.pop()


class Halting(HashedWords):
    """An embedder that cannot read words with a letter q."""

    def read(self, text: str) -> Reading:
        words = text.split()
        return Reading(len(words), sum("q" in word for word in words))


TEXTS = ["qat qog", "qit qaz", "fish swim", "birds fly"]


@pytest.fixture
def retriever(tmp_path: Path) -> Retriever:
    """An index of two passages that its embedder cannot read and two that it can."""
    return _retriever(tmp_path, [0, 1])


def _retriever(folder: Path, unread: Sequence[int]) -> Retriever:
    documents = [document(f"{row}", text) for row, text in enumerate(TEXTS)]
    embeddings = write_embeddings(folder / "embeddings", documents)
    write_unread(embeddings, unread)
    build_index(embeddings, folder / "index", IndexSettings())
    return Retriever.open(folder / "index", Halting())


def test_a_question_that_cannot_be_read_is_searched_by_words_alone(retriever: Retriever) -> None:
    """The nearest vector affects neither the order nor whether anything is found."""
    hits = retriever.search("qit fish qum", passes=lambda cosine: False)
    assert retriever.words_alone("qit fish qum") == "question"
    assert {hit.words_alone for hit in hits} == {"question"}
    assert [hit.row for hit in hits] == [
        hit.row for hit in retriever.search("qit fish qum", mode="bm25")
    ]
    assert {hit.dense_score for hit in hits} == {None}


def test_passages_that_cannot_be_read_are_found_by_words(retriever: Retriever) -> None:
    """They rank last by vectors; if no other passage passes the threshold, they are searched."""
    hits = retriever.search("fish qat swim birds")
    assert retriever.words_alone("fish qat swim birds") is None
    ranks = {hit.row: hit.dense_rank for hit in hits}
    assert ranks[0] is None
    assert hits[0].row == 2
    among = retriever.search("fish qat swim", passes=lambda cosine: False)
    assert [(hit.row, hit.words_alone) for hit in among] == [(0, "distance")]
    only = retriever.search("fish qat swim birds", filters={"document": "0"})
    assert [(hit.row, hit.words_alone) for hit in only] == [(0, "passages")]


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("fish qat swim birds", []),  # one word in four
        ("how do birds fly without wings qat", []),
        ("how do qats fly", []),
        ("qat", [0]),
        ("qat qog", [0]),
        ("qit qaz zebra", [1]),
        ("zebra qum qat qup qus", []),  # not read either
    ],
)
def test_a_shared_word_is_not_enough_where_words_alone_decide(
    retriever: Retriever, question: str, found: list[int]
) -> None:
    """A passage must contain a third of the question's words; without a threshold, one word."""
    hits = retriever.search(question, passes=lambda cosine: False)
    assert [hit.row for hit in hits] == found
    assert retriever.search(question, passes=lambda cosine: True) != []


def test_what_cannot_be_read_has_no_part_in_the_threshold(retriever: Retriever) -> None:
    """Neither passages nor questions: their cosines say nothing."""
    alone = retriever.nearest_cosine("qat qog x")
    assert alone is None
    near = retriever.nearest_cosine("qat fish swim")
    assert near == pytest.approx(
        retriever.search("qat fish swim", mode="dense", filters={"document": "2"})[0].score
    )
    mixed = "qat qog x y z"
    (nearest, *_) = retriever.search(mixed, mode="dense")
    assert nearest.row == 0
    highest = nearest.score - 1e-3
    assert retriever.search(mixed, mode="dense", passes=lambda cosine: cosine > highest) == []
    assert retriever.nearest_cosine("fish", {"document": "0"}) is None
    assert retriever.unread_passages() == (2, 4)
    assert retriever.unread_passages({"document": "[02]"}) == (1, 2)


def test_where_no_passage_can_be_read_only_words_count(tmp_path: Path) -> None:
    """Also for a question that can be read."""
    retriever = _retriever(tmp_path, [0, 1, 2, 3])
    assert retriever.words_alone("fish swim") == "passages"
    assert [hit.row for hit in retriever.search("fish swim")] == [2]


LANGUAGES = json.loads((Path(__file__).parent / "languages.json").read_text("utf-8"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_in_six_languages_the_right_text_is_found(
    language: str, minilm: Path, tmp_path: Path
) -> None:
    """Almost always by words; with both, hardly ever less often than with the better one."""
    from llmpipe.retrieval.embedders import identify_folder, open_embedder

    texts, questions = LANGUAGES[language]["texts"], LANGUAGES[language]["questions"]
    identity = identify_folder("sentence-transformers", minilm, "m", label="minilm")
    documents = [document(f"d{row:02}", text) for row, text in enumerate(texts)]
    with open_embedder(identity, model=minilm) as embedder:
        embeddings = write_embeddings(tmp_path / "e", documents, embedder=embedder)
        readings = [embedder.read(text) for text in texts]
        write_unread(embeddings, [row for row, one in enumerate(readings) if one.unread])
        build_index(embeddings, tmp_path / "index", IndexSettings())
        retriever = Retriever.open(tmp_path / "index", embedder)
        hit = {
            mode: np.mean([
                retriever.search(question, k=1, mode=mode)[0].row == row
                for question, row in questions
            ])
            for mode in ("dense", "bm25", "hybrid")
        }  # fmt: skip
    assert hit["bm25"] >= 0.9
    assert hit["hybrid"] >= max(hit["dense"], hit["bm25"]) - 0.05


@pytest.mark.parametrize("language", LANGUAGES)
def test_in_six_languages_enough_words_tell_the_right_text(language: str) -> None:
    """Only that text contains a third of the question's words; without it, none does."""
    texts, questions = LANGUAGES[language]["texts"], LANGUAGES[language]["questions"]
    index = Bm25.build(texts, Bm25Settings())
    for question, row in questions:
        others = [text for place, text in enumerate(texts) if place != row]
        assert index.shares(question, [row])[0] >= ENOUGH_WORDS
        without = Bm25.build(others, Bm25Settings())
        assert max(without.shares(question, range(len(others)))) < ENOUGH_WORDS
    for question in unrelated_questions():
        assert max(index.shares(question, range(len(texts)))) < ENOUGH_WORDS
