"""Passages in SQLite: written data is read back, the file is reproducible, filters select."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hashed_words import chunk_of, document
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import StageError
from llmpipe.retrieval.filters import FilterError, read_filters
from llmpipe.retrieval.passages import Passages, write_passages

pytestmark = pytest.mark.heavy  # numpy is of the extra `rag`

DOCUMENTS = [
    document("docs/a.md", "first text", year=2019, language="en", draft=True, date="2019-05-01"),
    document("docs/deep/b.md", "second text", year=2021, language="de", size=10**20),
    document("faq.csv#3", "third text", year=2020.5, language="en", draft=False, one=1),
    document("it's [odd]?.txt", "fourth text", language="1", one="1"),
]
KEYS = ["date", "draft", "language", "one", "size", "year"]
PATHS = [("Install",), ("Install", "Linux"), ("Install it",), ("Say \"hi\", 'x'", "ü")]


@pytest.fixture
def passages(tmp_path: Path) -> Passages:
    """Four documents of one chunk each."""
    path = tmp_path / "a folder?#%20" / "passages.sqlite"
    path.parent.mkdir()
    chunks = [chunk_of(d, section=s) for d, s in zip(DOCUMENTS, PATHS, strict=True)]
    assert write_passages(path, DOCUMENTS, chunks) == 4
    return Passages(path)


def test_all_that_was_written_is_read(passages: Passages) -> None:
    """Chunks by row in the requested order; documents by id."""
    assert passages.count == 4
    assert passages.chunk(1).document == "docs/deep/b.md"
    assert [chunk.text for chunk in passages.chunks([2, 0])] == ["third text", "first text"]
    assert passages.document("docs/a.md") == DOCUMENTS[0]
    assert passages.document("docs") is None
    assert passages.document_ids() == [d.id for d in DOCUMENTS]
    assert passages.chunk_ids() == [f"c-{d.id}" for d in DOCUMENTS]
    with pytest.raises(KeyError):
        passages.chunk(4)


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ({}, [0, 1, 2, 3]),
        ({"language": "en"}, [0, 2]),
        ({"language": ["de", "fr"]}, [1]),
        ({"language": ["en", "de", "en"]}, [0, 1, 2]),
        ({"year": 2019}, [0]),
        ({"year": 2019.0}, [0]),
        ({"year": {"min": 2020}}, [1, 2]),
        ({"year": {"min": 2019, "max": 2020.5}}, [0, 2]),
        ({"date": {"min": "2019-01-01", "max": "2019-12-31"}}, [0]),
        ({"date": {"min": "2020"}}, []),
        ({"draft": True}, [0]),
        ({"draft": [True, False]}, [0, 2]),
        ({"draft": 1}, []),
        ({"one": 1}, [2]),
        ({"one": "1"}, [3]),
        ({"one": True}, []),
        ({"size": 10**20}, [1]),
        ({"size": {"min": 10**19}}, [1]),
        ({"document": "docs/a.md"}, [0]),
        ({"document": "docs/*"}, [0, 1]),
        ({"document": ["*.csv#?", "*/b.md"]}, [1, 2]),
        ({"document": "DOCS/*"}, []),
        ({"document": "it's [[]odd]?.txt"}, [3]),
        ({"section": "Install"}, [0, 1]),
        ({"section": ["Install", "Linux"]}, [1]),
        ({"section": PATHS[3]}, [3]),
        ({"section": "Inst"}, []),
        ({"section": "Install", "language": "de", "document": "docs/*"}, [1]),
        ({"language": "x' OR '1'='1"}, []),
        ({"document": "x' OR '1'='1"}, []),
    ],
)
def test_filters(passages: Passages, filters: dict[str, Any], rows: list[int]) -> None:
    """Each kind of condition, several at once, and quotes without special meaning."""
    assert passages.rows_matching(filters).tolist() == rows


def test_the_keys_of_the_metadata(passages: Passages, tmp_path: Path) -> None:
    """Each once, from any document; none without metadata."""
    assert passages.metadata_keys() == KEYS
    bare = document("a", "text")
    write_passages(tmp_path / "bare", [bare], [chunk_of(bare)])
    assert Passages(tmp_path / "bare").metadata_keys() == []


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("langauge", "did you mean 'language'?"),
        ("Section", "did you mean 'section'?"),
        ("x' OR '1'='1", f"available filters: document, section, {', '.join(KEYS)}"),
    ],
)
@pytest.mark.parametrize("condition", ["en", ["en", "de"], {"min": 3}])
def test_a_key_that_no_document_has_is_told(
    passages: Passages, key: str, hint: str, condition: Any
) -> None:
    """With the most similar key, or a list of all keys."""
    with pytest.raises(FilterError, match=r"no document has this key in its metadata") as caught:
        passages.rows_matching({"document": "docs/*", key: condition})
    assert caught.value.message.startswith(f"the filter {key!r} matches nothing")
    assert caught.value.hint == hint


def test_of_many_keys_some_are_listed(tmp_path: Path) -> None:
    """A CSV file may have hundreds of columns."""
    wide = document("a", "text", **{f"column {n:03}": 1 for n in range(300)})
    write_passages(tmp_path / "p", [wide], [chunk_of(wide)])
    with pytest.raises(FilterError) as caught:
        Passages(tmp_path / "p").rows_matching({"zzz": 1})
    assert str(caught.value.hint).endswith(", column 017, …")


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"document": 3}, "takes a text or a list of texts"),
        ({"document": []}, "takes a text or a list of texts"),
        ({"section": [1]}, "takes a text or a list of texts"),
        ({"year": []}, "takes a value, a list of values or a range"),
        ({"year": None}, "takes a value, a list of values or a range"),
        ({"year": [{"min": 1}]}, "takes a value, a list of values or a range"),
        ({"year": {}}, "takes a range with `min`, `max` or both"),
        ({"year": {"from": 1}}, "takes a range with `min`, `max` or both"),
        ({"year": {"min": 1, "max": "2"}}, "takes a range of numbers or of texts"),
        ({"year": {"min": True}}, "takes a range of numbers or of texts"),
        ({"year": 10**400}, "a number that is larger than any"),
        ({"year": {"max": -(10**5000)}}, "a number that is larger than any"),
    ],
)
def test_filters_that_make_no_sense(filters: dict[str, Any], wanted: str) -> None:
    """Each is named, with what is allowed."""
    with pytest.raises(StageError, match="the filter") as caught:
        read_filters(filters)
    assert wanted in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["document", "section", "year", "'"]), JSON))
def test_any_filters_give_rows_or_a_message(
    tmp_path_factory: pytest.TempPathFactory, filters: dict[str, Any]
) -> None:
    """Whatever JSON a request contains."""
    path = tmp_path_factory.getbasetemp() / "any.sqlite"
    if not path.exists():
        write_passages(path, DOCUMENTS, map(chunk_of, DOCUMENTS))
    passages = Passages(path)
    try:
        rows = passages.rows_matching(filters).tolist()
    except StageError:
        return
    finally:
        passages.close()
    assert rows == sorted(set(rows) & set(range(4)))


def test_a_pattern_with_many_stars_is_quick() -> None:
    """Matching does not backtrack."""
    conditions = read_filters({"document": "*a" * 40 + "b"})
    assert conditions.admits_documents(["a" * 200]) == [False]


def test_a_chunk_has_its_documents_metadata_too(tmp_path: Path) -> None:
    """Its own value wins if both have a key."""
    whole = document("a", "text", year=2019, language="en")
    write_passages(tmp_path / "p", [whole], [chunk_of(whole, metadata={"year": 2020})])
    passages = Passages(tmp_path / "p")
    assert passages.rows_matching({"year": 2020, "language": "en"}).tolist() == [0]
    assert passages.rows_matching({"year": 2019}).tolist() == []


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    """There is no other file beside it, not even while it is read."""
    for name in ("a", "b"):
        write_passages(tmp_path / name, DOCUMENTS, map(chunk_of, DOCUMENTS))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    (tmp_path / "a").chmod(0o444)
    assert Passages(tmp_path / "a").chunk(0).text == "first text"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_threads_read_at_the_same_time(passages: Passages) -> None:
    """One connection serves them all."""

    def ask(number: int) -> tuple[str, list[int]]:
        rows = passages.rows_matching({"language": "en"}).tolist()
        return passages.chunk(number % 4).document, rows

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(400)))
    assert answers == [(DOCUMENTS[n % 4].id, [0, 2]) for n in range(400)]


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    """A chunk of an unknown document; a duplicate id."""
    one, two = DOCUMENTS[:2]
    with pytest.raises(
        StageError, match=r"the document 'docs/deep/b\.md' of the chunk .* is missing"
    ):
        write_passages(tmp_path / "a", [one], [chunk_of(two)])
    with pytest.raises(StageError, match="share an id"):
        write_passages(tmp_path / "b", [one, one], [])
    with pytest.raises(StageError, match="share an id"):
        write_passages(tmp_path / "c", [one], [chunk_of(one), chunk_of(one)])


def test_what_is_no_database_is_named(tmp_path: Path) -> None:
    """A missing or damaged file does not end in a traceback."""
    with pytest.raises(StageError, match="cannot be read"):
        Passages(tmp_path / "missing")
    write_passages(tmp_path / "p", DOCUMENTS, map(chunk_of, DOCUMENTS))
    (tmp_path / "p").write_bytes((tmp_path / "p").read_bytes()[:5000])
    with pytest.raises(StageError, match="cannot be read"):
        Passages(tmp_path / "p").chunks(range(4))
    with pytest.raises(sqlite3.Error):
        sqlite3.connect(tmp_path / "p").execute("PRAGMA integrity_check; SELECT 1 FROM chunks")
