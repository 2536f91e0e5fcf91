"""Searches, and documents around what was found."""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from town_service import AFTER, BEFORE, HOSTILE, PASSAGE, TEXTS, Serve, waited
from web.calling import error_of, until

from llmpipe.web.search_routes import PLACES

pytestmark = pytest.mark.heavy


def test_a_search_says_why(serve: Serve) -> None:
    """Every hit comes with its place, its text and both rankings' evidence."""
    served = serve()
    hits = served.http.post("/v1/search", json={"query": "bridge metres long"}).json()["hits"]
    assert len(hits) == 4
    first = hits[0]
    assert set(first) == {
        "rank", "chunk", "document", "title", "section", "pages", "start", "end", "text",
        "score", "dense_rank", "dense_score", "bm25_rank", "bm25_score", "rerank_score",
    }  # fmt: skip
    assert (first["rank"], first["document"], first["title"]) == (1, "bridge.pdf", "The bridge")
    assert (first["section"], first["pages"]) == (["About bridge.pdf"], [2, 2])
    assert (first["start"], first["end"], first["text"]) == (
        len(BEFORE), len(BEFORE) + len(PASSAGE), PASSAGE,
    )  # fmt: skip
    assert (first["dense_rank"], first["bm25_rank"]) == (1, 1)
    assert first["rerank_score"] is None
    assert served.asked() == []


def test_a_search_is_asked_for_its_way(serve: Serve) -> None:
    """How many, by what, and from which documents."""
    served = serve()

    def found(**fields: Any) -> list[str]:
        body = {"query": "kiosk morning", **fields}
        hits = served.http.post("/v1/search", json=body).json()["hits"]
        return [hit["document"] for hit in hits]

    assert found(k=1) == ["kiosk.md"]
    assert found(mode="bm25") == ["kiosk.md"]
    assert found(filters={"language": "de"}) == ["permits.md"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"query": " "}, "empty_question"),
        ({"query": "a" * 10_001}, "question_too_long"),
        ({"query": "a", "k": 0}, "invalid_request"),
        ({"query": "a", "k": 101}, "invalid_request"),
        ({"query": "a", "mode": "psychic"}, "invalid_request"),
        ({"query": "a", "filters": {"year": {"over": 3}}}, "invalid_filter"),
        ({"query": "a", "filters": {"year": 2020}}, "invalid_filter"),
        ({"query": "a", "filters": {"year": {"min": 10**400}}}, "invalid_filter"),
        ({"query": "a", "filters": {"year": [1, -(10**400)]}}, "invalid_filter"),
        ({}, "invalid_request"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    serve: Serve, fields: dict[str, Any], code: str
) -> None:
    """With 400 and a word for it."""
    response = serve().http.post("/v1/search", json=fields)
    assert error_of(response) == (400, "invalid_request_error", code)


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({"document": "*a" * 200_000}, "400,000 characters in one value; a request may have 8,192"),
        ({"document": [f"{n}*" for n in range(90_000)]}, "90,000 values; a request may have 1,000"),
        ({"document": ["?" * 20, "[a]" * 20]}, "40 wildcards (* ? [); a request may have 32"),
        ({"language": list(range(90_000))}, "90,000 values"),
        ({"section": ["a"] * 90_000}, "90,000 values"),
        ({"year": {"min": "1" * 9_000}}, "9,000 characters"),
        ({"k" * 9_000: 1}, "9,000 characters"),
        ({str(n): n for n in range(50_000)}, "50,000 values"),
    ],
)
def test_filters_of_a_caller_are_bounded(serve: Serve, filters: dict[str, Any], told: str) -> None:
    """By number and length, before anything is made of them: all others would wait."""
    served, begun = serve(), time.process_time()
    response = served.http.post("/v1/search", json={"query": "kiosk", "filters": filters})
    assert error_of(response)[::2] == (400, "invalid_filter")
    assert told in response.json()["error"]["message"]
    assert time.process_time() - begun < 2


def test_as_many_documents_as_a_request_may_name_are_found_among(serve: Serve) -> None:
    """By their ids, which are not patterns unless they hold a wildcard."""
    names = [f"none-{number}.md" for number in range(990)] + ["kio[s]k.*"]
    body = {"query": "kiosk", "filters": {"document": names}}
    hits = serve().http.post("/v1/search", json=body).json()["hits"]
    assert {hit["document"] for hit in hits} == {"kiosk.md"}


def test_a_filter_on_what_no_document_has_is_told(serve: Serve) -> None:
    """With what may be meant; nothing is embedded for it."""
    served = serve(asks_embedder=True)
    body = {"query": "kiosk", "filters": {"langauge": "en"}}
    response = served.http.post("/v1/search", json=body)
    assert error_of(response)[::2] == (400, "invalid_filter")
    message = response.json()["error"]["message"]
    assert "'langauge'" in message
    assert message.endswith("did you mean 'language'?")
    assert served.endpoint.received == []


def test_a_hint_names_nothing_that_is_hidden(serve: Serve) -> None:
    """Where the stage's filters hide documents, the keys of their metadata are not told."""
    served = serve(filters={"document": "kiosk.md"})
    body = {"query": "kiosk", "filters": {"langauge": "en"}}
    response = served.http.post("/v1/search", json=body)
    assert error_of(response)[::2] == (400, "invalid_filter")
    message = response.json()["error"]["message"]
    assert "'langauge'" in message
    assert "language" not in message


def test_a_filter_of_no_form_waits_for_nobody(serve: Serve) -> None:
    """It is refused while other searches take every place."""
    served = serve(asks_embedder=True)
    let_go = threading.Event()
    served.endpoint.before = lambda body, number: waited(let_go)
    searches = [
        threading.Thread(
            target=lambda: httpx.post(f"{served.url}/v1/search", json={"query": "a"}, timeout=30)
        )
        for _ in range(PLACES)
    ]
    for search in searches:
        search.start()
    try:
        assert until(lambda: len(served.endpoint.received) == PLACES, 10)
        body = {"query": "a", "filters": {"year": {}}}
        response = served.http.post("/v1/search", json=body, timeout=5)
        assert error_of(response)[::2] == (400, "invalid_filter")
    finally:
        let_go.set()
        for search in searches:
            search.join()


def test_the_filters_of_the_stage_bound_everything(serve: Serve) -> None:
    """A caller narrows them further, cannot lift them, and reads no document around them."""
    served = serve(filters={"language": "en", "document": "*.*"})
    hits = served.http.post("/v1/search", json={"query": "permit"}).json()["hits"]
    assert {hit["document"] for hit in hits} == {"kiosk.md", "bridge.pdf"}
    lifted = {"query": "permit", "filters": {"language": "de"}}
    assert error_of(served.http.post("/v1/search", json=lifted))[::2] == (400, "invalid_filter")
    assert served.http.get("/v1/documents/kiosk.md").status_code == 200
    for hidden in ("permits.md", "rules/dogs & cats#2"):
        response = served.http.get(f"/v1/documents/{quote(hidden, safe='')}")
        assert error_of(response)[::2] == (404, "not_found")


def test_a_passage_comes_with_what_is_around_it(serve: Serve) -> None:
    """Counted in characters, up to a limit on either side, with its section and page."""
    served = serve()
    start, end = len(BEFORE), len(BEFORE) + len(PASSAGE)
    found = served.http.get(f"/v1/documents/bridge.pdf?start={start}&end={end}").json()
    assert found == {
        "document": "bridge.pdf",
        "title": "The bridge",
        "section": ["About bridge.pdf"],
        "pages": [2, 2],
        "before": BEFORE[-20_000:],
        "quote": PASSAGE,
        "after": AFTER[:20_000],
        "cut_before": True,
        "cut_after": True,
    }


def test_places_count_characters_not_their_halves(serve: Serve) -> None:
    """A text with emoji is cut where Python counts, under a name that must be escaped."""
    served = serve()
    name, text = "rules/dogs & cats#2", TEXTS["rules/dogs & cats#2"]
    start = text.index("Cats")
    found = served.http.get(f"/v1/documents/{quote(name, safe='')}?start={start}&end={start + 4}")
    assert found.json()["quote"] == "Cats"
    assert found.json()["before"].endswith("🐈 ")
    assert found.json()["after"].endswith(HOSTILE)
    assert served.http.get(f"/v1/documents/{quote(name)}").json()["document"] == name


@pytest.mark.parametrize(
    "query", ["start=-1&end=2", "start=5&end=2", "end=76", "start=x", "start=²", "end=" + "9" * 40]
)
def test_a_place_that_is_not_there_is_refused(serve: Serve, query: str) -> None:
    """With 400, whatever the number looks like."""
    response = serve().http.get(f"/v1/documents/kiosk.md?{query}")
    assert error_of(response)[::2] == (400, "invalid_place")


def test_a_passage_that_is_too_long_is_cut(serve: Serve) -> None:
    """What there is room for is given, and that it goes on; a caller reads on from there."""
    text = BEFORE + PASSAGE + AFTER
    found = serve().http.get("/v1/documents/bridge.pdf?start=10&end=30010").json()
    assert (found["before"], found["quote"], found["after"]) == (text[:10], text[10:20_010], "")
    assert (found["cut_before"], found["cut_after"]) == (False, True)
