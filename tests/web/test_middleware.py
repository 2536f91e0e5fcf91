"""Who may call the service, and what is told to browsers."""

from __future__ import annotations

import json

import openai
import pytest
from town_service import SAYS, Serve
from web.calling import client, error_of, question

from llmpipe.web.middleware import Admission

pytestmark = pytest.mark.heavy


def test_every_answer_is_closed_to_other_sites(serve: Serve) -> None:
    """The page's policy, no guessing of types, nothing kept, and no header that opens it (CORS)."""
    served = serve()
    for path in ("/", "/page.js", "/calls.js", "/page.css", "/health", "/nowhere"):
        headers = served.http.get(path, headers={"Origin": served.url}).headers
        policy = headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy
        assert "script-src 'self'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert not [name for name in headers if name.startswith("access-control")]
        kept = "no-store" if path in ("/health", "/nowhere") else "no-cache"
        assert headers["cache-control"] == kept


def test_the_key_is_asked_for(serve: Serve) -> None:
    """For everything but the page itself and the health; a wrong one is as good as none."""
    served = serve(admission=Admission(api_key="s3cret ü"))
    for path in ("/", "/page.css", "/calls.js", "/page.js", "/health"):
        assert served.http.get(path).status_code == 200
    for path in ("/metrics", "/v1/models", "/v1/documents/kiosk.md", "/v1/search", "/nowhere"):
        response = served.http.get(path)
        assert error_of(response) == (401, "authentication_error", "invalid_api_key")
        assert response.headers["www-authenticate"] == "Bearer"
    wrong = ("Bearer wrong", "Bearer s3cret ü".encode()[:-1], "Basic s3cret ü".encode(), "Bearer")
    for value in wrong:
        headers = {"Authorization": value}
        assert served.http.get("/v1/models", headers=headers).status_code == 401
    right = {"Authorization": "Bearer s3cret ü".encode()}
    assert served.http.get("/v1/models", headers=right).status_code == 200
    assert served.http.get("/health").json()["key_required"] is True


def test_an_empty_key_admits_nobody(serve: Serve) -> None:
    """Least of all those who send none."""
    served = serve(admission=Admission(api_key=""))
    for headers in ({}, {"Authorization": "Bearer"}):
        assert served.http.get("/v1/models", headers=headers).status_code == 401


def test_openais_client_sends_the_key(serve: Serve) -> None:
    """With it there is an answer, with another one its own error."""
    served = serve(admission=Admission(api_key="right"))
    create = client(served, "right").chat.completions.create
    assert create(model="m", messages=question()).choices[0].message.content == SAYS
    with pytest.raises(openai.AuthenticationError, match="not the one of this service"):
        client(served, "wrong").chat.completions.create(model="m", messages=question())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("localhost:1", 200),
        ("[::1]:9", 200),
        ("127.9.9.9", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example:80", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_only_this_machine_names_a_loopback_service(serve: Serve, host: str, status: int) -> None:
    """A site that gives its own name our address (DNS rebinding) gets nothing."""
    assert serve().http.get("/health", headers={"Host": host}).status_code == status


def test_other_machines_name_an_open_service_as_they_like(serve: Serve) -> None:
    """What is bound beyond loopback is protected by its key."""
    served = serve(admission=Admission(loopback=False, api_key="k"))
    assert served.http.get("/health", headers={"Host": "docs.example"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "", "http://[", "http://[x]"]
)
def test_pages_of_other_sites_may_not_call(serve: Serve, origin: str) -> None:
    """Their requests need no leave to be sent, but compute nothing here."""
    served = serve()
    body = json.dumps({"messages": question()})
    headers = {"Origin": origin, "Content-Type": "text/plain"}
    response = served.http.post("/v1/chat/completions", content=body, headers=headers)
    assert error_of(response)[::2] == (403, "wrong_origin")
    assert served.asked() == []
