"""Tell replies that can be used from those that cannot, whatever a method asked for.

Endpoints answer with status 200 and the text of an error, with the prompt, or with far more tokens
than were asked for. Each is a reason to reject the reply.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from llmpipe.formats.leakage import normalize

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply, ChatRequest

Messages = list[dict[str, str]]

_REFUSALS = r"(?:bad request|unauthorized|forbidden|not found)"
_FAULTS = (
    r"(?:too many requests|internal server error|bad gateway|service unavailable"
    r"|gateway time-?out|rate limit (?:exceeded|reached)|upstream (?:error|connect error))"
)
_END = r"(?=\s*(?:[^\w\s]|\n|\Z))"
"""After a status, no sentence goes on: ``Not found means that …`` is an answer."""
_CODE = r"(?:http\s*)?(?:error\s*)?(?:code\s*)?(?:400|401|403|404|408|413|429|5\d\d)[\s:-]+"
_STATUS = re.compile(
    rf"(?:{_CODE}|error[\s:-]+)(?:{_REFUSALS}|{_FAULTS}){_END}"
    rf"|{_FAULTS}{_END}"
    r"|(?:api )?error\s*:\s*(?:context|connection|internal|model|overloaded|quota|rate|request"
    r"|server|service|timeout|upstream)\b",
    re.IGNORECASE,
)
_CAUSE = re.compile(
    r"\W*(?:an?\s)?(?:internal |upstream |server |api |request )*(?:error|exception|failure)\b"
    r"[^.]*?(?:overload|rate.?limit|time.?out|timed out|unavailable|upstream|internal server|"
    r"quota|too many requests|bad gateway|\b(?:429|50[0234]|529)\b)",
    re.IGNORECASE | re.DOTALL,
)
"""Two ways in which the error of an endpoint begins: with its status, or with its cause."""
_TITLE = re.compile(r"<title>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_OF_ERRORS = frozenset({"error", "type", "code", "message", "status", "request_id"})
"""Keys beside which `error` is that of an endpoint; an answer in JSON has others."""
LONGEST_PAGE = 2000
"""Characters of a page with which a proxy reports an error."""
LONGEST_ERROR = 300
"""Characters of an error message in plain text; an answer about errors is longer."""
SHORTEST_PROMPT = 24
"""Characters of a prompt that an answer repeats; it may begin with a shorter one."""
SPARE_TOKENS = 16
"""Tokens by which endpoints count differently, such as an end-of-turn token."""
CHARACTERS_PER_TOKEN = 32
"""More characters than a token has on average in any language."""


def checked(request: ChatRequest, reply: ChatReply) -> ChatReply:
    """Return the reply, with a problem if its text cannot be an answer to any request."""
    from dataclasses import replace

    if reply.problem is not None:
        return reply
    text = reply.text.strip()
    prompt = request.messages[-1]["content"].strip()
    problem = ""
    if _is_error(text) and not _wants_error(request):
        problem = "error text"
    elif len(prompt) >= SHORTEST_PROMPT and text.startswith(prompt):
        problem = "repeats the prompt"
    elif _too_many(request, reply):
        problem = "over max_tokens"
    return replace(reply, problem=problem, detail=text[:300]) if problem else reply


def unusable(reply: ChatReply) -> tuple[str, str] | None:
    """Return why a reply has no text to use, with a detail; None if it can be read.

    A truncated reply is not among them: a method may use the complete part of it.
    """
    if reply.problem:
        return reply.problem, reply.detail
    if not reply.text.strip():
        return ("truncated" if reply.truncated else "empty"), without_answer(reply)
    return None


def without_answer(reply: ChatReply) -> str:
    """Return a reason if a reply ends inside the teacher's reasoning, else an empty text."""
    silent = reply.reasoning and not reply.text
    return "the reply ends inside the teacher's reasoning" if silent else ""


def contains_prompt(text: str, messages: Messages) -> bool:
    """Return whether a text contains all of what the teacher was last asked."""
    return normalize(messages[-1]["content"]) in normalize(text)


def excerpt(text: str, longest: int = 2000) -> str:
    """Return the beginning of a rejected text, so that an endless one does not fill the file."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def _is_error(text: str) -> bool:
    """Return whether a text is an error message of an endpoint or of a proxy before it."""
    if text.startswith("<"):
        return len(text) <= LONGEST_PAGE and _is_error_page(text)
    if text.startswith("{"):
        return _is_error_object(text)
    return len(text) <= LONGEST_ERROR and bool(_STATUS.match(text) or _CAUSE.match(text))


def _wants_error(request: ChatRequest) -> bool:
    """Return whether a request's own schema has a field ``error``."""
    return "error" in (request.schema or {}).get("properties", {})


def _is_error_object(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    if not isinstance(value, dict) or not value.keys() <= _OF_ERRORS:
        return False
    error = value.get("error")
    return isinstance(error, str | dict) and bool(error)


def _is_error_page(text: str) -> bool:
    title = _TITLE.search(text)
    shown = _TAG.sub(" ", text).strip()
    return bool((title and _STATUS.search(title[1])) or _STATUS.match(shown))


def _too_many(request: ChatRequest, reply: ChatReply) -> bool:
    """Return whether an endpoint wrote more than it was allowed, where it ignores the limit."""
    most = request.max_tokens + SPARE_TOKENS
    if reply.tokens is not None:
        return reply.tokens > most
    return len(reply.text) > CHARACTERS_PER_TOKEN * most
