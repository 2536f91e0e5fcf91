"""BM25: words as people write them, scores by the formula, files without pickles."""

from __future__ import annotations

import math
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import StageError
from llmpipe.retrieval.bm25 import QUESTION_WORDS, Bm25, Bm25Settings, terms_of

pytestmark = pytest.mark.heavy  # bm25s and numpy are of the extra `rag`

PLAIN = Bm25Settings(language="none", stemming=False)
ENGLISH = Bm25Settings()


def test_long_words_are_not_remembered() -> None:
    """Otherwise a service would keep what clients send, up to 10,000 characters per question."""
    words = terms_of(PLAIN)
    tracemalloc.start()
    try:
        for number in range(300):
            assert list(words(f"a{number}" + "x" * 50_000))
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "settings", "expected"),
    [
        ("The installers were Installing it", ENGLISH, ["instal", "were", "instal"]),
        ("The installers were", Bm25Settings(stemming=False), ["installers", "were"]),
        ("The installers", PLAIN, ["the", "installers"]),
        ("Die Häuser und der Fluß", Bm25Settings(language="german"), ["haus", "fluss"]),
        ("sys.exit(x)", PLAIN, ["sys.exit", "sys", "exit", "x"]),
        ("日本 Ⅳ ﬁle", PLAIN, ["日", "本", "日本", "iv", "file"]),
        ("Привет, Ελλάδα", PLAIN, ["привет", "ελλάδα", "ελλαδα"]),
        ("…!?", PLAIN, []),
    ],
)
def test_words(text: str, settings: Bm25Settings, expected: list[str]) -> None:
    """Case, stop words, endings, identifiers, scripts without spaces, other Unicode forms."""
    assert list(terms_of(settings)(text)) == expected


@pytest.mark.parametrize(
    ("one", "other"), [("USA", "U.S.A."), ("100GB", "100 GB"), ("10km", "10 km"), ("5км", "5 км")]
)
def test_two_spellings_find_each_other(one: str, other: str) -> None:
    """Whichever is in the text; each finds its own spelling at least as well."""
    for asked, written in ((one, other), (other, one)):
        index = Bm25.build([f"It is {written} now", "It is now", f"It is {asked} now"], ENGLISH)
        scores = index.scores(asked)
        assert 0 == scores[1] < scores[0] <= scores[2]


def test_scores_are_the_formula() -> None:
    """Lucene's BM25 by hand: idf × tf / (tf + k1·(1 − b + b·length / mean length))."""
    index = Bm25.build(["red red fish", "blue fish", "one two three four"], PLAIN)
    mean = (3 + 2 + 4) / 3
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    expected = idf * 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / mean))
    assert index.scores("red").tolist() == pytest.approx([expected, 0, 0])
    assert index.scores("red fish")[0] > index.scores("red")[0]
    assert index.scores("red red").tolist() == pytest.approx([2 * expected, 0, 0])


def test_shares_are_of_the_weight_of_the_words() -> None:
    """A rare word weighs most, any of its forms counts, and unknown words count too."""
    index = Bm25.build(["red fish", "blue fish", "résumé of a fish"], PLAIN)
    fish, red = (math.log(1 + (3 - n + 0.5) / (n + 0.5)) for n in (3, 1))
    assert index.shares("red fish", [0, 1]).tolist() == pytest.approx([1, fish / (red + fish)])
    assert index.shares("red unknown fish fish", [1, 0]).tolist() == pytest.approx(
        [fish / (2 * red + fish), (red + fish) / (2 * red + fish)]
    )
    assert index.shares("Resume", [0, 2]).tolist() == [0, 1]
    assert index.shares("", [0]).tolist() == index.shares("unknown", [2]).tolist() == [0]
    assert index.shares("fish", []).tolist() == []


def test_what_is_remembered_does_not_grow_with_the_text() -> None:
    """Regression: whole runs of Han characters were cached, each of which hardly ever recurs."""
    drawn = np.random.default_rng(0).integers(0, 99, (1000, 200))
    texts = ["".join(chr(0x4E00 + n) for n in row) for row in drawn.tolist()]
    terms = terms_of(ENGLISH)
    tracemalloc.start()
    try:
        for text in texts:
            for _ in terms(text):
                pass
        assert tracemalloc.get_traced_memory()[0] < 8e6
    finally:
        tracemalloc.stop()


def test_saved_and_opened_it_scores_the_same(tmp_path: Path) -> None:
    """The settings are saved too; the files are JSON and arrays, the same for the same texts."""
    texts = ["Installing on Linux", "Removing from Linux", "El Niño"]
    for name in ("a", "b"):
        Bm25.build(texts, ENGLISH).save(tmp_path / name)
    opened = Bm25.open(tmp_path / "a")
    assert (opened.settings, opened.count) == (ENGLISH, 3)
    built = Bm25.build(texts, ENGLISH)
    for question in ("install", "linux niño", "unknown words", ""):
        assert opened.scores(question).tolist() == built.scores(question).tolist()
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {Path(name).suffix for name in files} == {".json", ".npy"}
    for name in files:
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        if name.endswith(".npy"):
            np.load(tmp_path / "a" / name, allow_pickle=False)


@pytest.mark.parametrize("texts", [["one passage"], ["…", "!!"], ["the", "and"], ["", "word"]])
def test_tiny_and_wordless_collections(texts: list[str], tmp_path: Path) -> None:
    """With one passage, or without any word, nothing is found and nothing fails."""
    Bm25.build(texts, ENGLISH).save(tmp_path)
    opened = Bm25.open(tmp_path)
    assert not opened.scores("nothing like it").any()
    assert opened.scores("passage word").shape == (len(texts),)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5), st.text(max_size=30))
def test_any_text_can_be_indexed_and_asked(texts: list[str], question: str) -> None:
    """Scores are finite and never negative, and 0 exactly if no word is shared."""
    scores = Bm25.build(texts, PLAIN).scores(question)
    asked = set(terms_of(PLAIN)(question))
    shared = [bool(asked & set(terms_of(PLAIN)(text))) for text in texts]
    assert np.isfinite(scores).all()
    assert [score > 0 for score in scores] == shared


def test_a_question_of_100_000_characters_is_quick() -> None:
    """Only its first words count: a book as a question must not block a server."""
    index = Bm25.build([f"passage {n} of many words" for n in range(2000)], ENGLISH)
    begin = time.process_time()
    scores = index.scores("word " * QUESTION_WORDS + "1999 " * 20_000)
    assert time.process_time() - begin < 0.5
    assert np.ptp(scores) == 0  # the number, after so many words, has no say


def test_what_is_no_index_is_named(tmp_path: Path) -> None:
    """A missing or damaged file gives an error message."""
    with pytest.raises(StageError, match="cannot be read as a BM25 index"):
        Bm25.open(tmp_path)
    Bm25.build(["text"], ENGLISH).save(tmp_path)
    (tmp_path / "vocab.index.json").write_text("{")
    with pytest.raises(StageError, match="cannot be read as a BM25 index"):
        Bm25.open(tmp_path)


@pytest.mark.parametrize("language", ["none", "english", "turkish"])
@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("Öğle treni İzmir'e gider", "izmir"),
        ("قال مُحَمَّد هذا", "محمد"),
        ("The com\u00adputer room", "computer"),
        ("A résumé is wanted", "resume"),
        ("Un cœur", "COEUR"),
        ("Written in C++ here", "C++"),
        ("Opened with O_DIRECT set", "direct"),
        ("See sql-createtrigger.html", "sql-createtrigger"),
    ],
)
def test_words_are_found_as_people_write_them(text: str, question: str, language: Any) -> None:
    """Another spelling or a part of a name finds the passage, and not the other passage."""
    index = Bm25.build([text, "Something else"], Bm25Settings(language=language))
    found, other = index.scores(question)
    assert found > 0
    assert other == 0


def test_a_whole_name_is_better_than_its_parts() -> None:
    """A search for C++ ranks the passage about C++ before those about C# and C."""
    index = Bm25.build(["It is in C#.", "It is in C.", "It is in C++.", "Nothing"], PLAIN)
    assert index.scores("C++").argmax() == 2
    assert index.scores("c#").argmax() == 0


def test_the_article_of_arabic_and_hebrew_is_no_hindrance() -> None:
    """It is written as part of the word."""
    index = Bm25.build(["تفتح المكتبة صباحا", "הספרייה פתוחה", "x"], ENGLISH)
    assert index.scores("مكتبة").argmax() == 0
    assert index.scores("בספרייה").argmax() == 1
