"""Tell replies that can be used from those that cannot, whatever a method asked for.

Endpoints answer with status 200 and the text of an error, small teachers repeat the prompt, and a
server that ignores ``max_tokens`` writes without end. Each is a reason to reject the reply.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from llmpipe.formats.leakage import normalize
from llmpipe.stages.generate.asking import Messages, without_answer

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply

CHARACTERS_PER_TOKEN = 32
"""More characters than a token has on average in any language; a longer reply ignored the limit."""

_ERROR = re.compile(
    r"""\s*(?:
        <(?:!doctype|html)\b
      | (?:http\s*)?(?:error\s*)?(?:400|401|403|404|408|413|429|5\d\d)?[\s:-]*
        (?:bad\ request|unauthorized|forbidden|not\ found|too\ many\ requests
          |internal\ server\ error|bad\ gateway|service\ unavailable|gateway\ time-?out
          |rate\ limit\ (?:exceeded|reached)|upstream\ (?:error|connect\ error))\b
      | (?:api\ )?error\s*:\s*(?:context|connection|internal|model|overloaded|quota|rate|request
          |server|service|timeout|upstream)\b
    )""",
    re.VERBOSE | re.IGNORECASE,
)
LONGEST_ERROR = 300
"""Characters of an error message in plain text; an answer about errors is longer."""


def unusable(reply: ChatReply, max_tokens: int) -> tuple[str, str] | None:
    """Return why a reply cannot be used at all, with a detail; None if it can be read.

    A truncated reply is not among them: a method may use the complete part of it.

    Args:
        reply: the reply.
        max_tokens: the limit that it was asked to keep.
    """
    if reply.problem:
        return reply.problem, reply.detail
    if not reply.text.strip():
        return ("truncated" if reply.truncated else "empty"), without_answer(reply)
    if len(reply.text) > CHARACTERS_PER_TOKEN * max_tokens:
        return "over the limit", f"{len(reply.text)} characters for {max_tokens} tokens"
    if _is_error(reply.text):
        return "error text", ""
    return None


def contains_prompt(text: str, messages: Messages) -> bool:
    """Return whether a text contains all of what the teacher was last asked."""
    return normalize(messages[-1]["content"]) in normalize(text)


def excerpt(text: str, longest: int = 2000) -> str:
    """Return the beginning of a rejected text, so that an endless one does not fill the file."""
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"


def _is_error(text: str) -> bool:
    """Return whether a text is an error message of an endpoint or of a proxy before it."""
    if _ERROR.match(text) and (len(text) <= LONGEST_ERROR or text.lstrip().startswith("<")):
        return True
    if not text.lstrip().startswith("{"):
        return False
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "error" in value
