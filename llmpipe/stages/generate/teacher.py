"""The model that is asked: served here by llama.cpp, or behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmpipe.contracts import Artifact
from llmpipe.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmpipe.backends.openai_api import ChatClient


class TeacherConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The model that writes, and how it is decoded."""

    engine: Literal["llama.cpp", "openai"]
    """``llama.cpp`` serves a GGUF for the time of the stage; ``openai`` asks an endpoint."""
    model: str
    """For llama.cpp a GGUF (a path, ``pkg://…`` or a stage); for openai the model's name."""
    base_url: str | None = None
    """The endpoint, up to and with its ``/v1``. Only for openai, where it is required."""
    api_key: Annotated[str | None, Meta(extra_json_schema={"writeOnly": True})] = None
    """The endpoint's key as ``${secret:NAME}``. Only for openai."""
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7
    """Randomness of rewriting and answering. The judge is always asked with 0."""
    max_tokens: Annotated[int, Meta(ge=1)] = 512
    """Tokens that a reply may take; longer ones are cut and rejected."""
    context: Annotated[int, Meta(ge=256)] = 2048
    """Tokens of prompt and reply together. Only for llama.cpp; an endpoint knows its own."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 4
    """Requests under way at the same time; the slots of a llama.cpp server.

    With 1, llama.cpp gives the same replies on every run. With more it computes several together,
    and its rounding, now and then a word, depends on which ones met.
    """

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
            if self.max_tokens >= self.context:
                yield "max_tokens", f"leaves no room for a prompt in a context of {self.context}"


def identity(config: TeacherConfig, gguf: Artifact | None) -> dict[str, str]:
    """Say which teacher it is, in the journal and in each row's provenance: a GGUF by content."""
    if gguf is not None:
        return {"engine": config.engine, "model": gguf.digest}
    return {"engine": config.engine, "model": config.model, "base_url": config.base_url or ""}


@contextmanager
def open_teacher(
    config: TeacherConfig,
    gguf: Artifact | None,
    *,
    journal: Path,
    log: Path,
    threads: int,
    reveal: Callable[[str], str],
    anew: bool = False,
) -> Iterator[ChatClient]:
    """Give a client for the teacher, whichever engine it has; it is closed at the end.

    ``gguf`` is the teacher's file for llama.cpp, whose own log goes to ``log``. ``anew`` asks again
    what the journal holds.

    Raises:
        StageError: the GGUF cannot be served, or the secret for the key is not set.
    """
    from llmpipe.backends.journal import Journal
    from llmpipe.backends.openai_api import ChatClient

    common: Mapping[str, Any] = {
        "identity": identity(config, gguf),
        "concurrency": config.concurrency,
    }
    with Journal(journal, anew=anew) as replies:
        if gguf is None:
            key = reveal(config.api_key) if config.api_key else "none"
            with ChatClient(config.base_url or "", config.model, journal=replies,
                            api_key=key, **common) as client:  # fmt: skip
                yield client
            return
        with _serve(config, gguf, log=log, threads=threads) as server, ChatClient(
            f"{server.url}/v1", server.model, journal=replies, local=True,
            api_key=server.api_key or "none", check_alive=server.check_alive, **common
        ) as client:  # fmt: skip
            yield client


@contextmanager
def _serve(config: TeacherConfig, gguf: Artifact, *, log: Path, threads: int) -> Iterator[Any]:
    from llmpipe.backends.llama_cpp import serve_gguf

    with serve_gguf(
        gguf.path,
        threads=threads,
        context=config.context,
        slots=config.concurrency,
        alias="teacher",
        log=log,
        api_key=secrets.token_hex(16),  # nobody else on this machine may use it meanwhile
    ) as server:
        served = server.props()["default_generation_settings"]["n_ctx"]
        if served < config.context:
            raise StageError(
                f"{gguf.label} is served with a context of {served} tokens, not {config.context}",
                hint="lower teacher.context",
            )
        yield server
