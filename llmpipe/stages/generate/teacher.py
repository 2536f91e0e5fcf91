"""The teacher model, served here by llama.cpp or behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct

from llmpipe.backends.chat_model import ChatModelConfig, serve_alone
from llmpipe.contracts import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmpipe.backends.openai.chat import ChatClient


class TokenPrice(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an endpoint charges for a million tokens, in US dollars."""

    input: Annotated[float, Meta(ge=0)]
    """For prompts."""
    output: Annotated[float, Meta(ge=0)]
    """For replies, reasoning included."""


class TeacherConfig(ChatModelConfig, frozen=True, kw_only=True):
    """The model that writes the rows, and its decoding settings."""

    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7
    """Randomness of the teacher's texts. Judgments, and the instances of Self-Instruct, always use
    0."""
    max_tokens: Annotated[int, Meta(ge=1)] = 512
    """Maximum tokens of a reply, including reasoning. Longer replies are cut and rejected."""
    context: Annotated[int, Meta(ge=256)] = 2048
    """Tokens of prompt and reply together. Only for llama.cpp; an endpoint has its own limit."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 4
    """Number of requests at the same time; the slots of a llama.cpp server.

    With 1, llama.cpp gives the same replies on every run. With more, it computes several together,
    and its rounding, and rarely a word, depends on which ones coincide.
    """

    price: TokenPrice | None = None
    """What the endpoint charges, for ``llmpipe estimate``. Only for openai."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """List the fields that do not go together, as (field, message)."""
        yield from ChatModelConfig.problems(self)
        if self.engine == "llama.cpp" and self.price is not None:
            yield "price", "has no effect for the llama.cpp engine; remove it"
        if self.engine == "llama.cpp" and self.max_tokens >= self.context:
            yield "max_tokens", f"leaves no room for a prompt in a context of {self.context}"


def identity(config: TeacherConfig, gguf: Artifact | None) -> dict[str, str]:
    """Identify the teacher in the journal and in each row's provenance: a GGUF by content."""
    if gguf is not None:
        return {"engine": config.engine, "model": gguf.digest}
    return {"engine": config.engine, "model": config.model, "base_url": config.base_url or ""}


@contextmanager
def open_teacher(
    config: TeacherConfig,
    gguf: Artifact | None,
    *,
    journal: Path,
    work: Path,
    threads: int,
    reveal: Callable[[str], str],
    resample: bool = False,
    on_reply: Callable[[int | None], None] = lambda tokens: None,
) -> Iterator[ChatClient]:
    """Yield a client for the teacher, with either engine; it is closed at the end.

    ``gguf`` is the teacher's file for llama.cpp, which writes its log and its prompt cache into the
    folder ``work``. ``resample`` asks again for what the journal contains. ``on_reply`` is called
    with every reply; see `ChatClient`.

    Raises:
        StageError: The GGUF cannot be served, or the secret for the key is not set.
    """
    from llmpipe.backends.llama_cpp.prefixes import Prefixes
    from llmpipe.backends.openai.chat import ChatClient
    from llmpipe.backends.openai.journal import Journal

    common: Mapping[str, Any] = {
        "identity": identity(config, gguf),
        "concurrency": config.concurrency,
        "on_reply": on_reply,
    }
    with Journal(journal, resample=resample) as replies:
        if gguf is None:
            key = reveal(config.api_key) if config.api_key else "none"
            with ChatClient(config.base_url or "", config.model, journal=replies,
                            api_key=key, **common) as client:  # fmt: skip
                yield client
            return
        with _emptied(work / "prompts") as folder, serve_alone(
            gguf, role="teacher", context=config.context, slots=config.concurrency,
            threads=threads, log=work / "llama.cpp.log", slots_folder=folder,
        ) as server, ChatClient(
            f"{server.url}/v1", server.model, journal=replies, local=True,
            prefixes=Prefixes(server.url, config.concurrency),
            api_key=server.api_key or "none", check_alive=server.check_alive, **common
        ) as client:  # fmt: skip
            yield client


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for the block; a killed run may have left files in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
