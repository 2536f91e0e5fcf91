"""The teacher model: served here by llama.cpp, behind an OpenAI-compatible endpoint, or Claude."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmpipe.backends.chat_model import ChatModelConfig, serve_alone
from llmpipe.backends.spending import Budget, Price
from llmpipe.contracts import Artifact

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmpipe.backends.openai.chat import ChatClient

CONTEXT = 2048
"""Tokens of prompt and reply together, if a spec does not say."""
UNSEEN = ("api_key", "concurrency", "price", "timeout", "mode")
"""Fields that change no reply."""


class TeacherConfig(ChatModelConfig, frozen=True, kw_only=True):
    """The model that writes the rows, and its decoding settings."""

    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.7
    """Randomness of the teacher's texts, with the anthropic engine at most 1. Judgments, and the
    instances of Self-Instruct, always use 0."""
    max_tokens: Annotated[int, Meta(ge=1)] = 512
    """Maximum tokens of a reply, including reasoning. Longer replies are cut and rejected."""
    context: Annotated[int, Meta(ge=256)] | None = None
    """Tokens of prompt and reply together; 2048 by default for llama.cpp. For an endpoint, prompts
    that exceed it are not sent, by a low estimate; the endpoint refuses the others."""
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 4
    """Number of requests at the same time; the slots of a llama.cpp server.

    With 1, llama.cpp gives the same replies on every run. With more, it computes several together,
    and its rounding, and rarely a word, depends on which ones coincide.
    """
    timeout: Annotated[float, Meta(gt=0, le=86400)] = 600.0
    """Seconds to wait for a reply before it is asked for again."""
    mode: Literal["requests", "batch"] = "requests"
    """``batch`` submits the requests of a step together, through the provider's batch API: at a
    lower price, within a day for each step. Give the prices of batches as `price`."""
    price: Price | None = None
    """What the endpoint charges. Without it no cost is estimated, shown or limited: prices are
    never guessed."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """List the fields that do not go together, as (field, message)."""
        yield from ChatModelConfig.problems(self)
        if self.engine == "anthropic" and not self.api_key:
            yield "api_key", "is required for the anthropic engine: ${secret:NAME}"
        if self.temperature > self.highest_temperature:
            most = f"the {self.engine} engine takes {self.highest_temperature:g} at most"
            yield "temperature", f"is {self.temperature:g}; {most}"
        if self.local and self.max_tokens >= self.slot:
            yield "max_tokens", f"leaves no room for a prompt in a context of {self.slot}"
        elif self.context is not None and self.max_tokens >= self.context:
            yield "max_tokens", f"leaves no room for a prompt in a context of {self.context}"
        if self.local and self.price is not None:
            yield "price", "has no effect for the llama.cpp engine; remove it"
        if self.local and self.mode == "batch":
            yield "mode", "has no effect for the llama.cpp engine; remove it"

    @property
    def local(self) -> bool:
        """Whether the teacher runs on this machine, from an input of the stage."""
        return self.engine == "llama.cpp"

    @property
    def highest_temperature(self) -> float:
        """The highest temperature that the engine takes."""
        return 1.0 if self.engine == "anthropic" else 2.0

    @property
    def slot(self) -> int:
        """The tokens of a slot of our own server."""
        return self.context or CONTEXT

    def fingerprint(self) -> dict[str, Any]:
        """Return the fields that shape replies."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        if self.local:
            data["context"] = self.slot
        elif self.context is None:  # one that is too small drops rows
            del data["context"]
        return {name: value for name, value in data.items() if name not in UNSEEN}

    def package(self) -> str:
        """Return the distribution that asks the teacher."""
        return {"llama.cpp": "xllamacpp", "openai": "openai", "anthropic": "anthropic"}[self.engine]


def budget_problems(budget: Budget | None, teacher: TeacherConfig) -> Iterator[tuple[str, str]]:
    """List the fields of a budget that cannot be kept, as (field, message)."""
    if budget is not None and budget.money is not None and teacher.price is None:
        yield "money", (
            "has no effect for the llama.cpp engine; remove it" if teacher.local
            else "needs the teacher's price: `teacher: {price: {input: …, output: …}}`, "
            "in US dollars per million tokens"
        )  # fmt: skip


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
    budget: Budget | None = None,
    requires: frozenset[str] = frozenset(),
    warn: Callable[[str], None] = lambda message: None,
    on_reply: Callable[[int | None], None] = lambda tokens: None,
) -> Iterator[ChatClient]:
    """Yield a client for the teacher, with any engine; it is closed at the end.

    ``gguf`` is the teacher's file for llama.cpp, which writes its log and its prompt cache into the
    folder ``work``. ``resample`` asks again for what the journal contains. ``budget`` limits what
    the replies cost. ``requires`` names what an endpoint must obey, and ``warn`` says what it does
    not. ``on_reply`` is called with every reply; see `ChatClient`.

    Raises:
        StageError: The GGUF cannot be served, the secret for the key is not set, or the endpoint
            does not obey what is required.
    """
    from llmpipe.backends.ledger import Ledger
    from llmpipe.backends.llama_cpp.prefixes import Prefixes
    from llmpipe.backends.openai.chat import ChatClient
    from llmpipe.backends.openai.journal import Journal
    from llmpipe.backends.openai.probe import probe_endpoint

    def probe(client: ChatClient) -> None:
        probe_endpoint(client, requires | _needed_for(budget), warn)

    common: Mapping[str, Any] = {
        "identity": identity(config, gguf),
        "concurrency": config.concurrency,
        "timeout": config.timeout,
        "ledger": Ledger(config.price, budget),
        "on_reply": on_reply,
    }
    with Journal(journal, resample=resample) as replies:
        if gguf is None:
            with _of_endpoint(config, reveal, journal=replies, prepare=probe, **common) as client:
                yield client
            return
        with _emptied(work / "prompts") as folder, serve_alone(
            gguf, role="teacher", context=config.slot, slots=config.concurrency,
            threads=threads, log=work / "llama.cpp.log", slots_folder=folder,
        ) as server, ChatClient(
            f"{server.url}/v1", server.model, journal=replies, local=True,
            prefixes=Prefixes(server.url, config.concurrency),
            api_key=server.api_key or "none", check_alive=server.check_alive, **common
        ) as client:  # fmt: skip
            yield client


def endpoint_metrics(client: ChatClient) -> dict[str, Any]:
    """Return what the probe has found of an endpoint; nothing where it was not asked."""
    return {} if client.local or client.prepare else {"endpoint": asdict(client.format.abilities)}


def _of_endpoint(config: TeacherConfig, reveal: Callable[[str], str], **options: Any) -> ChatClient:
    """Return a client of the teacher's endpoint."""
    from llmpipe.backends.anthropic.chat_format import API, AnthropicFormat
    from llmpipe.backends.openai.chat import ChatClient
    from llmpipe.backends.openai.chat_format import OpenAIFormat

    claude = config.engine == "anthropic"
    return ChatClient(
        config.base_url or API,
        config.model,
        api_key=reveal(config.api_key) if config.api_key else "none",
        format=AnthropicFormat() if claude else OpenAIFormat(),
        context=config.context,
        batched=_batched(config),
        **options,
    )


def _batched(config: TeacherConfig) -> Callable[..., Any] | None:
    """Return what asks in batches, if the teacher is asked so."""
    if config.mode != "batch":
        return None
    from llmpipe.backends.anthropic.batch_api import AnthropicBatches
    from llmpipe.backends.openai.batch import Batches
    from llmpipe.backends.openai.batch_api import OpenAIBatches

    provider = AnthropicBatches() if config.engine == "anthropic" else OpenAIBatches()
    return lambda client, requests: Batches(client, provider).ask(requests)


def _needed_for(budget: Budget | None) -> frozenset[str]:
    """Return what an endpoint must obey so that a budget of tokens or money can be kept."""
    limited = budget is not None and (budget.tokens is not None or budget.money is not None)
    return frozenset({"max_tokens"} if limited else ())


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """Yield an empty folder for the block; a killed run may have left files in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
