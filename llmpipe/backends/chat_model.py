"""The model that a stage asks: a GGUF that llama.cpp serves for it alone, or an endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from llmpipe.contracts import Artifact, SecretField

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.client import LlamaServer


class ChatModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which model is asked, and where."""

    engine: Literal["llama.cpp", "openai"]
    """``llama.cpp`` serves a GGUF for the time that it is needed; ``openai`` asks an endpoint."""
    model: str
    """For llama.cpp a GGUF (a path, ``pkg://…`` or a stage); for openai the model's name."""
    base_url: str | None = None
    """The endpoint, up to and with its ``/v1``. Only for openai, where it is required."""
    api_key: SecretField = None
    """The endpoint's key as ``${secret:NAME}``. Only for openai."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """List the fields that do not go together, as (field, message)."""
        if self.engine == "openai" and not self.base_url:
            yield "base_url", "is required for the openai engine: https://…/v1"
        if self.base_url and not self.base_url.startswith(("http://", "https://")):
            yield "base_url", f"must begin with http:// or https://, not {self.base_url!r}"
        if self.engine == "llama.cpp":
            for name in ("base_url", "api_key"):
                if getattr(self, name) is not None:
                    yield name, "has no effect for the llama.cpp engine; remove it"


@contextmanager
def serve_alone(
    gguf: Artifact,
    *,
    role: str,
    context: int,
    slots: int,
    threads: int,
    log: Path | None,
    batch: int | None = None,
    slots_folder: Path | None = None,
) -> Iterator[LlamaServer]:
    """Serve a GGUF by a key that nobody else knows, in slots of at least ``context`` tokens.

    ``role`` is what the model is to its stage: the server's name for it, and the field of the spec
    that messages name. ``slots_folder`` is where beginnings of prompts are kept.

    Raises:
        StageError: the GGUF cannot be served, or not with so long a context.
    """
    from llmpipe.backends.llama_cpp.serve import BATCH, require_context, serve_gguf

    with serve_gguf(
        gguf.path,
        threads=threads,
        context=context,
        slots=slots,
        alias=role,
        log=log,
        batch=BATCH if batch is None else batch,
        slots_folder=slots_folder,
    ) as server:
        require_context(server, context, gguf.label, f"{role}.context")
        yield server
