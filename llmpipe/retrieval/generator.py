"""The model that writes the answers: a GGUF served by llama.cpp on this machine, or an endpoint.

Both may be used by several threads at once. A grammar restricts llama.cpp to the numbers of the
given sources; for an endpoint, other numbers are removed from its answer. Neither applies to
reasoning, which is streamed as separate pieces.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from msgspec import Meta

from llmpipe.backends.chat_model import ChatModelConfig, serve_alone
from llmpipe.backends.streaming import Cancellation, Piece, Pieces, Thought, Usage
from llmpipe.contracts import Artifact

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.client import LlamaServer
    from llmpipe.backends.openai.journal import Journal
    from llmpipe.backends.openai.journaled_stream import JournaledStreamer
    from llmpipe.backends.openai.stream import OpenAIStreamer
    from llmpipe.retrieval.prompt import Message

BATCH = 64
"""Prompt tokens that llama.cpp processes per batch. It notices a closed connection only between
batches; a slow core takes about a second for one with a small model. ``llmpipe serve`` measures the
best size for a model. Here it is constant: a check's answers must not depend on machine speed."""

BYTES_PER_TOKEN = 3
"""Estimate for endpoints: most tokenizers use more bytes per token in most languages."""

TOKENS_PER_MESSAGE = 8
"""Estimate for endpoints: tokens that the chat template adds to a message."""

_NUMBERS = re.compile(r"(\s*)\[(\d+(?:\s*[,;]\s*\d+)*)\]")
_INCOMPLETE = re.compile(r"\s*(?:\[[\d\s,;]*)?$")


class GeneratorConfig(ChatModelConfig, frozen=True, kw_only=True):
    """The model that writes the answers, and its decoding settings."""

    engine: Literal["llama.cpp", "openai"]
    """``llama.cpp`` serves a GGUF while it is needed; ``openai`` calls an endpoint."""
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0
    """Randomness of the wording. With 0, the same question gets the same answer."""
    max_tokens: Annotated[int, Meta(ge=1)] = 256
    """Maximum tokens of a reply, reasoning included; a longer reply is cut. A reply that is cut
    inside its reasoning has no answer."""
    context: Annotated[int, Meta(ge=256)] = 2048
    """Tokens of sources, question and answer together. For an endpoint they are estimated at three
    bytes each."""
    slots: Annotated[int, Meta(ge=1, le=256)] = 1
    """Questions answered at the same time; others wait. With llama.cpp, each slot takes the memory
    of one context."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield fields that conflict, as (field, message)."""
        yield from ChatModelConfig.problems(self)
        if self.max_tokens * 2 > self.context:
            yield "max_tokens", f"leaves no room for sources in a context of {self.context}"


class Generator(Protocol):
    """Writes an answer. Closing the stream of its pieces stops the work."""

    context: int
    """Tokens of prompt and answer together."""
    max_tokens: int
    """Maximum tokens of an answer."""
    sees_prompt: bool
    """Whether it sees the rendered prompt, and therefore knows where reasoning begins."""

    def check_alive(self) -> None:
        """Check that the model still runs, without a request.

        Raises:
            StageError: it does not.
        """

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the number of tokens of a conversation, chat template included."""

    def reads_as_text(self, text: str) -> bool:
        """Return whether the model reads a text without any control tokens."""

    def stream(
        self,
        messages: Sequence[Message],
        *,
        citations: int,
        cancellation: Cancellation | None = None,
    ) -> Pieces:
        """Yield the answer piece by piece, then its usage; cite only numbers up to ``citations``.

        After a cancellation the pieces end.

        Raises:
            StageError: the model cannot be reached, or its reply breaks off.
        """


@contextmanager
def open_generator(
    config: GeneratorConfig,
    gguf: Artifact | None,
    *,
    threads: int,
    reveal: Callable[[str], str],
    log: Path | None = None,
    journal: Journal | None = None,
) -> Iterator[Generator]:
    """Open the generator for the configured engine, and close it at the end.

    Args:
        config: the model and its decoding settings.
        gguf: the model file for llama.cpp; None for an endpoint.
        threads: CPU threads for llama.cpp.
        reveal: returns the value of a secret.
        log: the log file of llama.cpp.
        journal: records the answers of an endpoint and replays them.

    Raises:
        StageError: the GGUF cannot be served, or the secret for the key is not set.
    """
    if gguf is not None:
        with serve_alone(
            gguf, role="generator", context=config.context, slots=config.slots, threads=threads,
            log=log, batch=BATCH,
        ) as server:  # fmt: skip
            yield LlamaCppGenerator(server, config)
        return
    from llmpipe.backends.openai.journaled_stream import JournaledStreamer
    from llmpipe.backends.openai.stream import OpenAIStreamer

    key = reveal(config.api_key) if config.api_key else "none"
    with OpenAIStreamer(config.base_url or "", config.model, api_key=key) as endpoint:
        asked = endpoint if journal is None else JournaledStreamer(endpoint, journal)
        yield EndpointGenerator(asked, config)


class LlamaCppGenerator:
    """A GGUF model served by llama.cpp."""

    sees_prompt = True

    def __init__(self, server: LlamaServer, config: GeneratorConfig) -> None:
        self._server = server
        self._temperature = config.temperature
        self.context = config.context
        self.max_tokens = config.max_tokens

    def check_alive(self) -> None:
        """See `Generator`."""
        if self._server.process.poll() is not None:
            self._server.check_alive()

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """See `Generator`."""
        return len(self._server.tokenize(self._server.apply_template(messages), add_special=True))

    def reads_as_text(self, text: str) -> bool:
        """See `Generator`."""
        plain = self._server.tokenize(text, parse_special=False)
        return self._server.tokenize(text) == plain

    def stream(
        self,
        messages: Sequence[Message],
        *,
        citations: int,
        cancellation: Cancellation | None = None,
    ) -> Pieces:
        """See `Generator`."""
        return self._server.stream_chat(
            messages,
            max_tokens=self.max_tokens,
            temperature=self._temperature,
            grammar=citation_grammar(citations),
            cancellation=cancellation,
        )


class EndpointGenerator:
    """A model behind an OpenAI-compatible endpoint."""

    sees_prompt = False

    def __init__(
        self, endpoint: OpenAIStreamer | JournaledStreamer, config: GeneratorConfig
    ) -> None:
        self._endpoint = endpoint
        self._slots = threading.BoundedSemaphore(config.slots)
        self._temperature = config.temperature
        self.context = config.context
        self.max_tokens = config.max_tokens

    def check_alive(self) -> None:
        """See `Generator`. An endpoint is only checked when it is asked."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """See `Generator`. The number is an estimate."""
        return sum(
            TOKENS_PER_MESSAGE - -len(message["content"].encode()) // BYTES_PER_TOKEN
            for message in messages
        )

    def reads_as_text(self, text: str) -> bool:
        """See `Generator`. Endpoints are trusted to escape control tokens."""
        return True

    def stream(
        self,
        messages: Sequence[Message],
        *,
        citations: int,
        cancellation: Cancellation | None = None,
    ) -> Pieces:
        """See `Generator`."""
        with self._slots:
            pieces = self._endpoint.stream_chat(
                messages,
                max_tokens=self.max_tokens,
                temperature=self._temperature,
                cancellation=cancellation,
            )
            with closing(pieces):
                yield from without_other_numbers(pieces, citations)


def citation_grammar(citations: int) -> str:
    """Return a GBNF grammar whose only square brackets are the numbers 1 to ``citations``."""
    numbers = " | ".join(f'"{number}"' for number in range(1, citations + 1))
    return f'root ::= (text | "[" ({numbers}) "]")*\ntext ::= [^\\[\\]]'


def without_other_numbers(pieces: Iterable[Piece], citations: int) -> Iterator[Piece]:
    """Remove bracketed numbers that name no source from a stream; split ``[1, 2]`` into two.

    Text that may become such a number is held back until that is clear. Reasoning is unchanged.
    """
    held = ""
    for piece in pieces:
        if isinstance(piece, Thought):
            yield piece
            continue
        if isinstance(piece, Usage):
            if held:
                yield held
            yield piece
            return
        held = _NUMBERS.sub(lambda match: _allowed(match[1], match[2], citations), held + piece)
        rest = _INCOMPLETE.search(held)
        assert rest is not None
        if rest.start():
            yield held[: rest.start()]
        held = held[rest.start() :]
    if held:
        yield held


def _allowed(space: str, listed: str, citations: int) -> str:
    numbers = (int(number) for number in re.split(r"\D+", listed) if len(number) < 10)
    allowed = "".join(f"[{number}]" for number in numbers if 1 <= number <= citations)
    return space + allowed if allowed else ""
