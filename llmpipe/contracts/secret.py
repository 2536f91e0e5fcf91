"""Secrets: a config holds their names; values are read from the environment on use."""

from __future__ import annotations

import os
import re
from typing import Annotated

import msgspec

from llmpipe.errors import StageError

SECRET = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}")
"""A secret in a resolved config, which holds its name, never its value."""

SecretField = Annotated[
    str | None, msgspec.Meta(extra_json_schema={"writeOnly": True, "format": "password"})
]
"""The type of a field for a secret: ``${secret:NAME}``, never the value."""


def reveal(text: str) -> str:
    """Replace ``${secret:NAME}`` in ``text`` by the values.

    Raises:
        StageError: The environment has no such variable.
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
