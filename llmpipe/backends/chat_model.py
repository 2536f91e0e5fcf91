"""The chat model of a stage: a GGUF that llama.cpp serves for it, or an endpoint."""

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
    """A chat model, and where it runs."""

    engine: Literal["llama.cpp", "openai", "anthropic"]
    """``llama.cpp`` serves a GGUF while it is needed; ``openai`` calls an OpenAI-compatible
    endpoint; ``anthropic`` calls Anthropic's own API."""
    model: str
    """For llama.cpp a GGUF (a path, ``pkg://…`` or a stage); otherwise the model's name."""
    base_url: str | None = None
    """The endpoint's URL, for openai including ``/v1``. Required for openai; not allowed for
    llama.cpp."""
    api_key: SecretField = None
    """The endpoint's key as ``${secret:NAME}``. Not for llama.cpp."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield the fields that conflict with others, as (field, message)."""
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
    """Serve a GGUF with a secret key, in slots of at least ``context`` tokens.

    Args:
        gguf: The GGUF.
        role: The model's role in its stage, which is its name on the server and its field in the
            spec.
        context: The minimum tokens of a slot.
        slots: The number of slots.
        threads: The number of CPU threads.
        log: The file for llama.cpp's log, if any.
        batch: The tokens of a prompt that are computed at once; None for llama.cpp's default.
        slots_folder: The folder that keeps computed prompt prefixes, if any.

    Raises:
        StageError: The GGUF cannot be served, or not with such a long context.
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
