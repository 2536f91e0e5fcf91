"""Explain why publishing failed: the hub, the network, or a file of this machine."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from typing import Any

from llmpipe.errors import HubError, LlmpipeError, StoreError

LONGEST = 300
"""The number of characters that are shown of an error of the client."""

TOKEN_HINT = (
    "create a token with write access at {endpoint}/settings/tokens, then export HF_TOKEN=…"
)
_CONTINUES = "publish again: it continues"
_LOCAL = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO}
"""Errors of this machine that need not name a file."""
_PASSING = {408, 425, 429}
"""Refusals that a later request need not get."""


def explained(
    error: Exception, outcome: str, endpoint: str, repo: str, token: str | None
) -> LlmpipeError:
    """Return what an error of the client means, and what to do.

    Args:
        error: What the client raised.
        outcome: What is published now; may be empty.
        endpoint: The address of the hub.
        repo: The name of the repository.
        token: The token, which no message may contain.
    """
    local = _local_cause(error)
    if local is not None:
        message = f"{local.filename or 'a file here'}: {local.strerror}"
        hint = f"this is an error of this machine: correct it, then {_CONTINUES}"
        return StoreError("; ".join(filter(None, (message, outcome))), hint=hint)
    message, hint = _meaning(error, endpoint, repo, token)
    return HubError("; ".join(filter(None, (message, outcome))), hint=hint)


def _meaning(error: Exception, endpoint: str, repo: str, token: str | None) -> tuple[str, str]:
    cause: BaseException | None = error
    while cause is not None and getattr(cause, "response", None) is None:
        cause = cause.__cause__
    response: Any = getattr(cause, "response", None)
    status = getattr(response, "status_code", None)
    to_hub = response is not None and _concerns(str(response.url), repo)
    if to_hub and (meaning := _MEANINGS.get(int(status or 0))):
        message, hint = meaning
        named = {"endpoint": endpoint, "repo": repo, "owner": repo.split("/")[0]}
        return message.format(**named), hint.format(**named)
    text = _first_lines(error, token)
    if status is None and not isinstance(error, ValueError):
        return (
            f"the hub at {endpoint} cannot be reached: {text}",
            f"check the network and HF_ENDPOINT, then {_CONTINUES}",
        )
    if status is None:
        wrong = not isinstance(error, json.JSONDecodeError)  # else something else has answered
    else:
        wrong = to_hub and 400 <= status < 500 and status not in _PASSING
    hint = "correct what the answer names, then publish again" if wrong else _CONTINUES
    return f"the hub at {endpoint} refused: {text}", hint


_MEANINGS: Mapping[int, tuple[str, str]] = {
    401: ("the hub at {endpoint} does not accept the token", TOKEN_HINT),
    403: (
        "the token may not write to {repo}",
        (
            "choose a name of your own, or ask {owner} for the right to write\n"
            "a fine-grained token must name the repository or the namespace"
        ),
    ),
    404: (
        "the hub at {endpoint} has no repository {repo} that the token sees",
        "was it removed or renamed? Publish again to create it",
    ),
    409: (
        "the name {repo} is taken by a repository that the token does not see",
        "choose another name",
    ),
    412: ("{repo} has changed in the meantime", "look at the change, then publish again"),
}
"""What a status means when publishing, and what to do."""


def _concerns(url: str, repo: str) -> bool:
    """Return whether a request was about an account or a repository, not to the file storage."""
    return "/api/" in url or f"/{repo}.git/" in url or f"/{repo}/resolve/" in url


def _local_cause(error: BaseException) -> OSError | None:
    """Return the error of a file here that led to an error, if one did, not the network."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and getattr(cause, "response", None) is None:
            names_file = cause.filename is not None and not isinstance(cause, ConnectionError)
            if names_file or cause.errno in _LOCAL:
                return cause
        cause = cause.__cause__
    return None


def _first_lines(error: Exception, token: str | None) -> str:
    """Return the beginning of an error's text, and of its cause's, without the token."""
    causes = [error, error.__cause__] if error.__cause__ else [error]
    texts = [" ".join(str(cause).split()) for cause in causes]
    if token:  # before a text is cut: half a token would no longer be recognized
        texts = [text.replace(token, "[redacted]") for text in texts]
    return ": ".join(
        text[:LONGEST] or type(cause).__name__ for text, cause in zip(texts, causes, strict=True)
    )
