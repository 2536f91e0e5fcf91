"""The base classes of a kind's config: the fields that every stage has, and the type of secrets.

A config holds the names of secrets; their values are read from the environment on use.
"""

from __future__ import annotations

import os
import re
from typing import Annotated, Any

import msgspec

from llmpipe.errors import StageError

_MEMORY = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?([kMGT])(i?)B")
_MEMORY_POWERS = {"k": 1, "M": 2, "G": 3, "T": 4}

SECRET = re.compile(r"\$\{secret:([A-Za-z_][A-Za-z0-9_]*)\}")
"""A secret in a resolved config, which holds its name, never its value."""

SecretField = Annotated[
    str | None, msgspec.Meta(extra_json_schema={"writeOnly": True, "format": "password"})
]
"""The type of a field for a secret: ``${secret:NAME}``, never the value."""

RandomSeed = Annotated[int, msgspec.Meta(extra_json_schema={"formerly": "seed"})]
"""The type of a field ``random_seed``; specs may still call it ``seed`` (`formerly`)."""


class Resources(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a stage needs of the machine while it runs. Stages that fit together run together."""

    cpus: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """CPU threads. By default, as many as its kind needs: one, or all of the machine."""
    memory: Annotated[str, msgspec.Meta(pattern=f"^{_MEMORY.pattern}$")] | None = None
    """Main memory, such as 8GB or 512MiB. Stages that together exceed it take turns."""
    gpus: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """GPUs reserved for the stage, through CUDA_VISIBLE_DEVICES. By default, it sees all."""

    def memory_bytes(self) -> int:
        """Return the memory in bytes; 0 if it is not set."""
        match = _MEMORY.fullmatch(self.memory or "")
        if not match:
            return 0
        base = 1024 if match[3] else 1000
        return int(float(match[1]) * base ** _MEMORY_POWERS[match[2]])


class StageConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields that every stage has. A kind's config class inherits from this one."""

    kind: str
    """The kind of stage."""
    description: str = ""
    """What the stage is for, in the words of the spec's author."""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=1e9)] | None = None
    """Seconds after which the stage is stopped and counts as failed."""
    retries: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    """How often a failed stage is tried again, each time after a longer pause."""
    resources: Resources = Resources()
    """What the stage needs of the machine while it runs."""
    freeze: bool = False
    """Treat the stage's last artifacts as fresh, whatever has changed; the plan says so."""
    matrix: dict[str, Any] | None = None
    """Axes (paths inside the stage) with lists of values. The stage, and all that depend on it, run
    at every point. Also `exclude`, `include` and `max_parallel`."""


class ServedConfig(StageConfig, frozen=True, kw_only=True):
    """The fields of stages that ``llmpipe serve`` can serve (`Servable`)."""

    host: str = "127.0.0.1"
    """Address that ``llmpipe serve`` binds. If other machines can reach it, it needs an API key."""
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 8080
    """Port that ``llmpipe serve`` listens on. The check in a run uses any free port."""
    api_key: SecretField = None
    """Key that callers of ``llmpipe serve`` must send, as ``${secret:NAME}``."""


NON_SEMANTIC = frozenset(
    {"kind", "description", "timeout", "retries", "resources", "freeze", "matrix"}
)
"""Config fields that never change an artifact and so never enter a cache key."""

_SERVED = frozenset({"host", "port", "api_key"})
"""The fields of a `ServedConfig`."""


def semantic_fields(
    config: StageConfig, *, without: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """Return the config as JSON data, without the fields that never change an artifact."""
    data: dict[str, Any] = msgspec.to_builtins(config)
    left_out = NON_SEMANTIC | without | (_SERVED if isinstance(config, ServedConfig) else set())
    return {name: value for name, value in data.items() if name not in left_out}


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
