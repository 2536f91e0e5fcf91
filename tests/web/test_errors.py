"""What the log is told of errors: why, and nothing of what was asked."""

from __future__ import annotations

import json
import logging
from typing import Any

import openai
import pytest
from openai_endpoint import Answer
from town_service import Serve, Served
from web.calling import client, question

from llmpipe.web.middleware import Admission

pytestmark = pytest.mark.heavy

SECRET = "Is Alice ill?"


def noted(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Return the level and the words of every line."""
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def refuse(served: Served) -> None:
    """Have the model's server repeat in its refusal what it was asked."""

    def before(body: dict[str, Any], number: int) -> Answer | None:
        return 400, {"error": {"message": f"cannot answer {json.dumps(body)}"}}, {}

    served.endpoint.before = before


@pytest.mark.parametrize(
    ("path", "body", "line"),
    [
        ("/v1/search", {"query": [SECRET]}, "400 invalid_request: query: must be a string"),
        ("/v1/search", {"query": "a", SECRET: 1}, "400 invalid_request: unknown field"),
        ("/v1/search", {"query": " "}, "400 empty_question: the question is empty"),
        (
            "/v1/search",
            {"query": SECRET, "filters": {SECRET: {}}},
            "400 invalid_filter: a filter cannot be used",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": SECRET}]},
            "400 unsupported: this service does not take messages of the role",
        ),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": SECRET}]}]},
            "400 unsupported: this service does not take content of the type",
        ),
        (f"/v1/{SECRET}", {}, "404 not_found: Not Found"),
    ],
)
def test_what_callers_get_wrong_is_a_warning(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    path: str,
    body: dict[str, Any],
    line: str,
) -> None:
    """With the reason, and without what they sent."""
    served = serve()
    with caplog.at_level(logging.WARNING):
        assert served.http.post(path, json=body).status_code < 500
    assert noted(caplog) == [("WARNING", line)]


def test_no_name_of_a_document_is_noted(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of one that is not there nor of one that was asked for in a wrong way."""
    served = serve()
    with caplog.at_level(logging.WARNING):
        served.http.get("/v1/documents/alice.md")
        served.http.get("/v1/documents/alice.md?start=alice")
        served.http.get("/v1/documents/kiosk.md?start=7777")
    assert noted(caplog) == [
        ("WARNING", "404 not_found: there is no such document"),
        ("WARNING", "400 invalid_place: `start` is a number of characters"),
        ("WARNING", "400 invalid_place: the document does not have this span"),
    ]


def test_no_name_of_a_host_is_noted(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """It is the caller's word, too."""
    served = serve()
    with caplog.at_level(logging.WARNING):
        served.http.get("/health", headers={"Host": "alice.example"})
    ((_, line),) = noted(caplog)
    assert line.startswith("421 wrong_host: ")
    assert "alice" not in line


def test_no_key_is_noted(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Whether one was sent, and whether it was the right one, is all that is said."""
    served = serve(admission=Admission(api_key="r1ght"))
    with caplog.at_level(logging.WARNING):
        served.http.get("/v1/models", headers={"Authorization": "Bearer wr0ng"})
    ((_, line),) = noted(caplog)
    assert line.startswith("401 invalid_api_key: the API key is not the one of this service")
    assert "r1ght" not in line
    assert "wr0ng" not in line


@pytest.mark.parametrize("stream", [True, False])
def test_a_refusal_of_the_model_is_an_error(
    serve: Serve, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    """The caller hears the model's server's own words; they may quote the question, and are not noted."""
    served = serve()
    refuse(served)
    with caplog.at_level(logging.WARNING), pytest.raises(openai.APIError, match="Alice"):
        list(
            client(served).chat.completions.create(
                model="m", messages=question(SECRET), stream=stream
            )
        )
    reason = f"the endpoint {served.endpoint.url} did not answer: HTTP 400"
    assert noted(caplog) == [("ERROR", f"503 generator_unavailable: {reason}")]


def test_an_answer_that_breaks_off_is_noted_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """After its first words, too."""
    served = serve()
    served.endpoint.reply = lambda body: ("The kiosk", None)  # type: ignore[return-value, assignment]
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(openai.APIError, match="broke in the middle"),
    ):
        list(client(served).chat.completions.create(model="m", messages=question(), stream=True))
    ((level, line),) = noted(caplog)
    assert level == "ERROR"
    assert line.endswith("did not answer: ConnectionError")
