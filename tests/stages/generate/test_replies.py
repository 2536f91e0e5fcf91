"""Replies that no method can use, and answers that only look like one."""

from __future__ import annotations

import pytest

from llmpipe.backends.openai.chat_requests import ChatReply, ChatRequest
from llmpipe.stages.generate.replies import checked, contains_prompt, excerpt, unusable

PROMPT = "Name three rivers that flow through Zaragoza, with their lengths."
REQUEST = ChatRequest([{"role": "user", "content": PROMPT}], 0.7, 64, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Internal Server Error", "error text"),
        ("502 Bad Gateway", "error text"),
        ("HTTP 503: Service Unavailable", "error text"),
        (
            "<html><head><title>502 Bad Gateway</title></head><body><hr>nginx</body></html>",
            "error text",
        ),
        ("<!DOCTYPE html><title>h | 502: Bad gateway</title><body>busy</body>", "error text"),
        ("<html><body><h1>503 Service Unavailable</h1>\nNo server.</body></html>", "error text"),
        ("HTTP 403: Forbidden", "error text"),
        ("Error: Not found", "error text"),
        ("Service Unavailable", "error text"),
        ('{"type": "error", "error": {"type": "api_error"}, "request_id": "1"}', "error text"),
        ('{"error": {"message": "overloaded", "type": "server_error"}}', "error text"),
        ("Error: model overloaded", "error text"),
        ("Rate limit exceeded, try again in 20 s", "error text"),
        ("Error: upstream request timed out", "error text"),
        ("Internal Server Error: 502 Bad Gateway", "error text"),
        ("error code 429: rate limit exceeded", "error text"),
        ("[ERROR] The model is overloaded, try again later", "error text"),
        (PROMPT, "repeats the prompt"),
        (f"{PROMPT}\n\nThe Ebro.", "repeats the prompt"),
        ("la " * 100_000, "over max_tokens"),
        ("The Ebro, the Gállego and the Huerva.", None),
        ("An error code of 404 means that a page is not there.", None),
        ("Error handling keeps a program alive when a file is missing.", None),
        ("word " * 70, None),
        ("Error: division by zero is what it prints.", None),
        ("404 means that the page was not found.", None),
        ("Not found: " + "the page is missing, because " * 11, None),
        ('{"answer": "An error."}', None),
        ("{broken", None),
        ("Forbidden City, in the centre of Beijing.", None),
        ("Unauthorized", None),
        ("Not found means that the page is not there.", None),
        ("404 Not Found means that the page is not there.", None),
        ("<!DOCTYPE html><title>The Ebro</title><p>It flows through Zaragoza.</p>", None),
        ('{"error": null, "answer": "The Ebro."}', None),
        ('{"error": "a typo", "line": 3}', None),
        ('{"error": {}}', None),
        ("Nine o'clock.", None),
    ],
)
def test_what_no_method_can_use(text: str, reason: str | None) -> None:
    """An error text with status 200 is none of the teacher's; an answer about errors is."""
    reply = checked(REQUEST, ChatReply(text))
    assert reply.problem == reason
    assert (reply.detail == "") == (reason is None)


def test_tokens_are_counted_where_an_endpoint_says_them() -> None:
    """Few characters may be many tokens."""
    assert checked(REQUEST, ChatReply("la " * 90, tokens=90)).problem == "over max_tokens"
    assert checked(REQUEST, ChatReply("la " * 70, tokens=70)).problem is None


def test_a_field_that_was_asked_for_is_no_error() -> None:
    """A schema may have a field with that name."""
    schema = {"type": "object", "properties": {"error": {"type": "string"}}}
    asked = ChatRequest([{"role": "user", "content": PROMPT}], 0.7, 64, 1, schema=schema)
    assert checked(asked, ChatReply('{"error": "a missing comma"}')).problem is None


def test_a_short_prompt_may_begin_its_answer() -> None:
    """A completion of "Once upon a time" repeats it."""
    request = ChatRequest([{"role": "user", "content": "Once upon a time"}], 0.7, 64, 1)
    assert checked(request, ChatReply("Once upon a time there was a mill.")).problem is None


def test_a_problem_of_the_request_and_a_cut() -> None:
    """The endpoint's own words are the detail; a truncated text may still be used in part."""
    assert unusable(ChatReply(" \n ")) == ("empty", "")
    assert unusable(ChatReply(problem="refused", detail="no")) == ("refused", "no")
    assert unusable(ChatReply("Nine", truncated=True)) is None
    assert unusable(ChatReply(truncated=True, reasoning="hm")) == (
        "truncated",
        "the reply ends inside the teacher's reasoning",
    )


def test_a_prompt_that_is_repeated() -> None:
    """White space and case do not hide it."""
    asked = [{"role": "user", "content": "Question: Where is it?"}]
    assert contains_prompt("Sure!\nQUESTION:  where is it?", asked)
    assert not contains_prompt("Where is it?", asked)


def test_an_endless_text_is_cut_in_the_rejects() -> None:
    """And its length said."""
    assert excerpt("ab", longest=2) == "ab"
    assert excerpt("abc", longest=2) == "ab… (3 characters)"
