"""Documents are opened by their ids, whatever a file system allows in a name."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hashed_words import chunk_of, document, write_embeddings
from town_service import Serve

from llmpipe.retrieval.index import IndexSettings, build_index

pytestmark = pytest.mark.heavy

NAMES = [
    "plain.md", "a\nb.md", "ends so\n", "\nbegins so", "\n", "\r\n.md", "tab\t.md", " spaces ",
    "per%20cent%2F.md", "q?x=1&y#z", "back\\slash", "..hidden", "a/../b.md", "/abs//twice/", "ünï\u2028.md",
    "🐕.md", "\x01\x7f\x85.md", "semi;colon,+plus", "*[a]?.md", "\ufffd.md", "l" * 250, "d/" * 500 + "deep.md",
]  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of documents with such names."""
    folder = tmp_path_factory.mktemp("names")
    documents = [
        document(name, f"The words of number {number}.") for number, name in enumerate(NAMES)
    ]
    chunks = [chunk_of(each) for each in documents]
    embeddings = write_embeddings(folder / "embeddings", documents, chunks)
    build_index(embeddings, folder / "index", IndexSettings())
    return folder / "index"


def test_every_document_that_is_found_can_be_opened(serve: Serve) -> None:
    """By the id that the search gives; where the stage's filters bound what is seen, too."""
    for filters in ({}, {"document": "*"}):
        served = serve(filters=filters)
        body = {"query": "words of number", "k": 100}
        hits = served.http.post("/v1/search", json=body).json()["hits"]
        assert {hit["document"] for hit in hits} == set(NAMES)
        for number, name in enumerate(NAMES):
            found = served.http.get(f"/v1/documents/{quote(name, safe='')}")
            assert found.status_code == 200, name
            assert found.json()["document"] == name
            assert found.json()["after"] == f"The words of number {number}."
            only = body | {"filters": {"document": name.translate({ord("["): "[[]"})}}
            if not filters:
                hits = served.http.post("/v1/search", json=only).json()["hits"]
                assert [hit["document"] for hit in hits] == [name]


def test_what_is_like_an_id_is_none(serve: Serve) -> None:
    """A line break counts, and 404 names what was asked for."""
    served = serve()
    for name in ("plain.md\n", "ends so", "a b.md", "ab.md", "\n\n"):
        missing = served.http.get(f"/v1/documents/{quote(name, safe='')}")
        assert missing.status_code == 404
        assert missing.json()["error"]["message"] == f"there is no document {name!r}"
    assert served.http.get("/v1/models/answers%0A").status_code == 404
