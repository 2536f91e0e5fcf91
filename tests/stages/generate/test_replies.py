"""Replies that no method can use, and answers that only look like one."""

from __future__ import annotations

import pytest

from llmpipe.backends.openai.chat import ChatReply
from llmpipe.stages.generate.replies import contains_prompt, excerpt, unusable


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Internal Server Error", "error text"),
        ("502 Bad Gateway", "error text"),
        ("HTTP 503: Service Unavailable", "error text"),
        ("<!DOCTYPE html><html><body>busy</body></html>", "error text"),
        ('{"error": {"message": "overloaded", "type": "server_error"}}', "error text"),
        ("Error: model overloaded", "error text"),
        ("Rate limit exceeded, try again in 20 s", "error text"),
        ("", "empty"),
        (" \n ", "empty"),
        ("x" * 321, "over the limit"),
        ("Error: division by zero is what it prints.", None),
        ("404 means that the page was not found.", None),
        ("Not found: " + "the page is missing, because " * 11, None),
        ('{"answer": "An error."}', None),
        ("{broken", None),
        ("Nine o'clock.", None),
    ],
)
def test_what_no_method_can_use(text: str, reason: str | None) -> None:
    """An error text with status 200 is none of the teacher's; an answer about errors is."""
    found = unusable(ChatReply(text), max_tokens=11 if reason is None else 10)
    assert (found[0] if found else None) == reason


def test_a_problem_of_the_request_and_a_cut() -> None:
    """The endpoint's own words are the detail; a truncated text may still be used in part."""
    assert unusable(ChatReply(problem="refused", detail="no"), 10) == ("refused", "no")
    assert unusable(ChatReply("Nine", truncated=True), 10) is None
    assert unusable(ChatReply(truncated=True, reasoning="hm"), 10) == (
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
