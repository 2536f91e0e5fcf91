"""What the service says of itself, and of routes that it does not have."""

from __future__ import annotations

from pathlib import Path

import pytest
from openai import NotFoundError
from town_service import Serve
from web.calling import client, error_of

pytestmark = pytest.mark.heavy


def test_the_service_says_what_it_is(serve: Serve) -> None:
    """Its health, its one model, and what is in the index."""
    served = serve()
    assert served.http.get("/health").json() == {
        "status": "ok", "name": "town-docs", "stage": "answers", "key_required": False,
    }  # fmt: skip
    (model,) = client(served).models.list().data
    assert (model.id, model.owned_by) == ("answers", "llmpipe")
    assert model.model_extra["llmpipe"] == {
        "documents": 4, "chunks": 4, "modes": ["hybrid", "dense", "bm25"],
        "most_turns": 20,
    }  # fmt: skip


def test_the_model_says_when_its_index_was_made(serve: Serve, index: Path) -> None:
    """In the list and by its name, as OpenAI's clients ask; another name is an error of theirs."""
    served = serve()
    openai = client(served)
    (listed,) = openai.models.list().data
    assert listed.created == int((index / "index.json").stat().st_mtime)
    assert openai.models.retrieve("answers") == listed
    with pytest.raises(
        NotFoundError, match="there is no model 'gpt' here, only 'answers'"
    ) as caught:
        openai.models.retrieve("gpt")
    assert caught.value.code == "model_not_found"
    assert served.http.get("/v1/models/a/b").json()["error"]["code"] == "model_not_found"


def test_the_metrics_count(serve: Serve) -> None:
    """Requests by route and status, answers and what they took; names of documents in no label."""
    served = serve()
    served.ask()
    served.http.get("/v1/documents/kiosk.md")
    served.http.get("/nowhere/at/all")
    chat = 'route="/v1/chat/completions"'
    assert served.metric(f'llmpipe_requests_total{{{chat},status="200"}}') == 1
    assert served.metric(f"llmpipe_request_seconds_count{{{chat}}}") == 1
    assert (
        served.metric('llmpipe_requests_total{route="/v1/documents/{id:path}",status="200"}') == 1
    )
    assert served.metric('llmpipe_requests_total{route="other",status="404"}') == 1
    assert served.metric("llmpipe_answers_total") == 1
    assert served.metric("llmpipe_generated_tokens_total") == 5
    assert served.metric("llmpipe_retrieval_seconds_count") == 1
    assert served.metric("llmpipe_generation_seconds_count") == 1
    assert served.metric("llmpipe_requests_in_flight") == 1  # the one that reads them
    assert "kiosk" not in served.http.get("/metrics").text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/health/", 404, "not_found"),
        ("GET", "/v1/search", 405, "method_not_allowed"),
        ("DELETE", "/", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/chat/completions", 405, "method_not_allowed"),
    ],
)
def test_an_unknown_route_is_told_as_json(
    serve: Serve, method: str, path: str, status: int, code: str
) -> None:
    """In OpenAI's shape like every other error."""
    assert error_of(serve().http.request(method, path))[::2] == (status, code)
