"""What an endpoint says with status 200 and is no answer, is a problem of its request with a reason."""

from __future__ import annotations

import pytest

from llmpipe.backends.openai.chat_requests import ChatReply, ChatRequest
from llmpipe.stages.generate.asking import checked

PROMPT = "Name three rivers that flow through Zaragoza, with their lengths."
REQUEST = ChatRequest([{"role": "user", "content": PROMPT}], 0.7, 64, 1)


@pytest.mark.parametrize(
    ("text", "tokens", "problem"),
    [
        ("Error: upstream request timed out", 6, "error text"),
        ("Internal Server Error: 502 Bad Gateway", 6, "error text"),
        ("error code 429: rate limit exceeded", 8, "error text"),
        ("[ERROR] The model is overloaded, try again later", 8, "error text"),
        (PROMPT, 14, "repeats the prompt"),
        (f"{PROMPT}\n\nThe Ebro.", 18, "repeats the prompt"),
        ("la " * 100_000, 100_000, "over max_tokens"),
        ("la " * 100_000, None, "over max_tokens"),
        ("The Ebro, the Gállego and the Huerva.", 12, None),
        ("An error code of 404 means that a page is not there.", 12, None),
        ("Error handling keeps a program alive when a file is missing.", 12, None),
        ("", 0, None),
        ("word " * 70, 70, None),
    ],
)
def test_what_is_no_answer_is_a_problem(text: str, tokens: int | None, problem: str | None) -> None:
    """Each has its reason; texts about errors are answers."""
    reply = checked(REQUEST, ChatReply(text, tokens=tokens))
    assert reply.problem == problem
    assert (reply.detail == "") == (problem is None)


def test_a_short_prompt_may_begin_its_answer() -> None:
    """A completion of "Once upon a time" repeats it."""
    request = ChatRequest([{"role": "user", "content": "Once upon a time"}], 0.7, 64, 1)
    assert checked(request, ChatReply("Once upon a time there was a mill.")).problem is None
