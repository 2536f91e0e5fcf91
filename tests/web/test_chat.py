"""What callers may send as a conversation, and what of it is heeded."""

from __future__ import annotations

import json

import openai
import pytest
from town_service import WHEN, Serve
from web.calling import client, error_of, question

pytestmark = pytest.mark.heavy


def test_a_conversation_goes_on(serve: Serve) -> None:
    """Earlier turns reach the model in their order; callers' system messages do not."""
    served = serve()
    messages = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "Which dogs?"},
        {"role": "assistant", "content": "All dogs."},
        {"role": "user", "content": "not answered"},
        {"role": "user", "content": [{"type": "text", "text": WHEN}]},
    ]
    assert served.ask(messages=messages, temperature=1.5, user="me", seed=3).status_code == 200
    (asked,) = served.asked()
    assert asked["messages"][0]["role"] == "system"
    assert "pirate" not in json.dumps(asked)
    assert [message["content"] for message in asked["messages"][1:3]] == [
        "Which dogs?",
        "All dogs.",
    ]
    assert len(asked["messages"]) == 4
    assert asked["messages"][-1]["content"].endswith(WHEN)
    assert asked["temperature"] == 0


def test_an_answer_is_sent_back_as_it_came(serve: Serve) -> None:
    """Clients keep the whole message: the service refused its own words in it."""
    served = serve()
    answer = served.ask().json()
    said = answer["choices"][0]["message"]
    kept = {
        "refusal": None, "annotations": [{"type": "url_citation"}], "reasoning_content": "Hm.",
        "llmpipe": answer["llmpipe"], "name": "town", "tool_calls": [], "function_call": None,
    }  # fmt: skip
    cached = {"cache_control": {"type": "ephemeral"}}
    messages = [
        *question(),
        said | kept,
        {"role": "user", "name": "me", "content": [{"type": "text", "text": WHEN} | cached]}
        | cached,
    ]
    assert served.ask(messages=messages).status_code == 200
    asked = served.asked()[-1]["messages"]
    assert "opens at nine" in asked[2]["content"]
    assert set(asked[2]) == set(asked[-1]) == {"role", "content"}
    refused = {"role": "assistant", "content": None, "refusal": "I cannot."}
    assert served.ask(messages=[*question(), refused, *question()]).status_code == 200


def test_long_conversations_are_forgotten_from_the_front(serve: Serve) -> None:
    """What the last turns leave no room for is not heeded, whatever a caller sends."""
    served = serve()
    turn = [{"role": "user", "content": "a" * 9_000}, {"role": "assistant", "content": "b" * 9_000}]
    short = [{"role": "user", "content": "Short?"}, {"role": "assistant", "content": "Yes."}]
    served.ask(messages=[*turn, *turn, *short, *question()])
    contents = [message["content"] for message in served.asked()[0]["messages"]]
    assert "Short?" in contents


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_json"),
        (b"[]", "invalid_request"),
        (b"{}", "invalid_request"),
        (b'{"messages": [{"role": "user", "content": 3}]}', "invalid_request"),
        (b'{"messages": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_request"),
        (b'{"messages": []}', "no_question"),
        (b'{"messages": [{"role": "system", "content": "x"}]}', "no_question"),
        (b'{"messages": [{"role": "assistant", "content": "x"}]}', "no_question"),
        (b'{"messages": [{"role": "user", "content": "  "}]}', "empty_question"),
        (b'{"messages": [{"role": "user"}]}', "empty_question"),
        (b'{"messages": [{"role": "tool", "content": "x"}]}', "unsupported"),
        (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "unsupported"),
        (b'{"messages": [{"role": "user", "content": "x"}], "n": 2}', "unsupported"),
        (b'{"messages": [{"role": "user", "content": "x"}], "tools": [{}]}', "unsupported"),
        (b'{"messages": [{"role": "user", "content": "x"}], "filters": {"a": 1}}', "unsupported"),
        (
            b'{"messages": [], "response_format": {"type": "json_schema", "json_schema": {}}}',
            "unsupported",
        ),
    ],
)
def test_what_is_no_question_is_refused(serve: Serve, body: bytes, code: str) -> None:
    """With 400 and a word that programs tell it by; the model is not asked."""
    served = serve()
    response = served.http.post("/v1/chat/completions", content=body)
    assert error_of(response) == (400, "invalid_request_error", code)
    assert served.asked() == []


def test_what_is_too_long_is_refused(serve: Serve) -> None:
    """By its letters, by the tokens that the model has room for, and by the bytes of a request."""
    served = serve()
    assert error_of(served.ask("a" * 10_001))[2] == "question_too_long"
    assert error_of(served.ask("word " * 1_900))[::2] == (400, "question_too_long")
    assert error_of(served.ask("a" * 1_000_001))[::2] == (413, "body_too_large")
    with pytest.raises(openai.APIError, match="too long") as raised:
        list(
            client(served).chat.completions.create(
                model="m", messages=question("word " * 1_900), stream=True
            )
        )
    assert raised.value.code == "question_too_long"
