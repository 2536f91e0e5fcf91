"""Find passwords, keys and tokens in rows, and drop these rows or make them unreadable.

What was found is written nowhere: a dropped row has the name of the kind in its place, too. Each
kind is found whole, by its form alone; what only looks random is not taken for a secret.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llmpipe.stages.curate.pool import Drop, Pool
from llmpipe.stages.curate.redaction import Found, redacted, texts_in
from llmpipe.stages.curate.steps import SecretKind, Secrets

_FORMS: Mapping[SecretKind, str] = {
    "anthropic_key": r"\bsk-ant-[\w-]{32,}",
    "aws_key": r"\b(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}\b"
    r"|(?<![\w/+])[A-Za-z0-9/+]{40}(?![\w/+=])",
    "azure_storage_key": r"(?<=AccountKey=)[\w+/=]{86,}",
    "basic_auth": r"(?<=:)[^\s/:@?\"'<>]+(?=@[\w\[])",
    "discord_token": r"\b[MNO][\w-]{23,25}\.[\w-]{6}\.[\w-]{27,}",
    "github_token": r"\b(?:gh[oprsu]_\w{36,}|github_pat_\w{22,})",
    "gitlab_token": r"\bgl(?:pat|dt|ft|soat|rt|cbt|imt|ptt|agent|oas)-[\w-]{20,}",
    "google_key": r"\bAIza[\w-]{35}(?![\w-])",
    "huggingface_token": r"\bhf_[A-Za-z0-9]{34,}\b",
    "jwt": r"\beyJ[\w-]{10,}\.eyJ[\w-]{5,}\.[\w-]*",
    "mailchimp_key": r"\b[0-9a-f]{32}-us\d{1,2}\b",
    "npm_token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "openai_key": r"\bsk-[\w-]*T3BlbkFJ[\w-]+",
    "private_key": r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]{,20000}-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"|(?:\s|\\[rn])*(?:[A-Za-z0-9+/=]{40,}(?:\s|\\[rn])*)+)",
    "pypi_token": r"\bpypi-AgE[\w-]{50,}",
    "sendgrid_key": r"\bSG\.[\w-]{22}\.[\w-]{43}",
    "slack_token": r"\bxox[abeoprs]-[\w-]{10,}|\bhooks\.slack\.com/services/\w+/\w+/\w+",
    "square_key": r"\bsq0csp-[\w-]{43}",
    "stripe_key": r"\b[rs]k_live_[0-9a-zA-Z]{24,}",
    "telegram_token": r"\b\d{8,10}:[\w-]{35}(?![\w-])",
    "twilio_key": r"\b(?:AC|SK)[0-9a-f]{32}\b",
}
"""The form of each kind, as those who issue it describe it."""

_AWS_NAME = re.compile(r"aws\w{,20}?(?:key|secret|token)\W{1,6}$", re.IGNORECASE)
"""What stands before the secret of a key of AWS, which has no form of its own."""

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/?#@:]*:[^\s/?@]+$", re.IGNORECASE)
"""What stands before the ``@`` of an address with a password."""

_PLACEHOLDER = re.compile(
    r"pass(?:word|wd)?|pwd|secret|token|changeme|\W+|x+|your[\w-]*|[$%{\[].*", re.IGNORECASE
)
"""What stands in examples where a password belongs."""


class SecretFinder:
    """Finds the secrets of some kinds in a text."""

    def __init__(self, kinds: Iterable[SecretKind]) -> None:
        self._pattern = re.compile("|".join(f"(?P<{kind}>{_FORMS[kind]})" for kind in kinds))

    def find(self, text: str) -> Iterator[Found]:
        """Yield the places of secrets."""
        for match in self._pattern.finditer(text):
            kind = match.lastgroup or ""
            if _IS_MEANT.get(kind, _always)(text, match):
                yield Found(*match.span(), kind)


def _always(text: str, match: re.Match[str]) -> bool:
    return True


def _is_named(text: str, match: re.Match[str]) -> bool:
    """Return whether it is the id of a key, or stands behind the name of its secret."""
    before = text[max(0, match.start() - 60) : match.start()]
    return len(match[0]) == 20 or bool(_AWS_NAME.search(before))


def _is_password(text: str, match: re.Match[str]) -> bool:
    """Return whether it stands in an address, and is not the word for a password."""
    line = text[max(0, match.start() - 300) : match.end()]
    return bool(_ADDRESS.search(line)) and not _PLACEHOLDER.fullmatch(match[0])


_IS_MEANT: Mapping[str, Callable[[str, re.Match[str]], bool]] = {
    "aws_key": _is_named, "basic_auth": _is_password
}  # fmt: skip
"""What decides where the form alone does not."""


def run(step: Secrets, pool: Pool) -> Mapping[str, Any]:
    """Drop or redact rows with secrets; return the metrics."""
    finder, drops = SecretFinder(step.kinds), dict[int, Drop]()
    rows: Counter[str] = Counter()
    changed = 0
    for position, row in pool.each_row("looking for secrets"):
        kinds = {found.kind for text in texts_in(row) for found in finder.find(text)}
        if not kinds:
            continue
        rows.update(kinds)
        changed += 1
        pool.rows.replace(position, redacted(row, finder.find))
        named = ", ".join(sorted(kinds))
        keep = f"set action: redact, or take {named} out of kinds"
        drops[position] = Drop("secret", f"has {named}", keep)
    counts: dict[str, Any] = {"rows_by_kind": dict(sorted(rows.items()))}
    if step.action == "redact":
        return {**counts, "redacted": changed}
    pool.drop(drops)
    return counts
