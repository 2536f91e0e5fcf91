"""Secrets: named in a resolved config, and read from the environment only where they are used."""

from __future__ import annotations

import os
import re
from typing import Annotated

import msgspec

from llmpipe.errors import StageError

SECRET = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}")
"""The form of a secret in a resolved config: by name. Its value never enters one."""

SecretField = Annotated[
    str | None, msgspec.Meta(extra_json_schema={"writeOnly": True, "format": "password"})
]
"""The type of a field that holds nothing but a secret: ``${secret:NAME}``, never its value."""


def reveal(text: str) -> str:
    """Put the values of ``${secret:NAME}`` into ``text``.

    Raises:
        StageError: the environment has no such variable.
    """
    return SECRET.sub(_secret_value, text)


def _secret_value(match: re.Match[str]) -> str:
    name = match.group(1)
    value = os.environ.get(name)
    if not value:
        raise StageError(
            f"the secret {name} is not set", hint=f"set it in the environment: export {name}=…"
        )
    return value
