"""The model that writes the answers: a GGUF served here by llama.cpp, or an endpoint.

Either may be used by several threads at once. llama.cpp is held by a grammar to the numbers of the
sources that it was given; from an endpoint's answer other numbers are taken out. Neither holds for
reasoning, which comes as pieces of its own.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

from msgspec import Meta

from llmpipe.backends.chat_model import ChatModelConfig, serve_alone
from llmpipe.backends.streaming import Cancellation, Piece, Pieces, Thought, Usage
from llmpipe.contracts import Artifact

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.client import LlamaServer
    from llmpipe.backends.openai.journal import Journal
    from llmpipe.backends.openai.journalled_stream import JournalledStreamer
    from llmpipe.backends.openai.stream import OpenAIStreamer
    from llmpipe.retrieval.prompt import Message

BATCH = 64
"""Tokens of a prompt that llama.cpp computes in one go. Only in between does it see that a caller
has hung up; a slow core computes so many of a small model in a second. It is not measured, as
``llmpipe serve`` does for a model: a check's answers must not hang on how quick the machine was."""

BYTES_PER_TOKEN = 3
"""What an endpoint's tokens are reckoned by: most tokenizers make longer ones of most languages."""

TOKENS_PER_MESSAGE = 8
"""What a chat template is reckoned to put around a message at an endpoint."""

_LISTED = re.compile(r"(\s*)\[(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\]")
_UNFINISHED = re.compile(r"\s*(?:\[[\d\s,;]*)?$")


class GeneratorConfig(ChatModelConfig, frozen=True, kw_only=True):
    """The model that writes the answers, and how it is decoded."""

    temperature: Annotated[float, Meta(ge=0, le=2)] = 0
    """Randomness of the wording. With 0 the same question gets the same answer."""
    max_tokens: Annotated[int, Meta(ge=1)] = 256
    """Tokens that a reply may take, reasoning included; a longer one is cut. One that is cut inside
    its reasoning has no answer."""
    context: Annotated[int, Meta(ge=256)] = 2048
    """Tokens of sources, question and answer together. Those of an endpoint are reckoned, three
    bytes each."""
    slots: Annotated[int, Meta(ge=1, le=256)] = 1
    """Questions that are answered at the same time; for llama.cpp each takes the memory of one
    context, and others wait."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """List the fields that do not go together, as (field, message)."""
        yield from ChatModelConfig.problems(self)
        if self.max_tokens * 2 > self.context:
            yield "max_tokens", f"leaves no room for sources in a context of {self.context}"


class Generator(Protocol):
    """Writes an answer. Whoever stops taking its pieces ends the work behind them."""

    context: int
    """Tokens of prompt and answer together."""
    max_tokens: int
    """Tokens that an answer may take."""
    sees_prompt: bool
    """Whether it sees the prompt as the model reads it, and so knows where reasoning begins."""

    def check_alive(self) -> None:
        """Find out at once whether it is still there, as far as that can be seen from here.

        Raises:
            StageError: it is not.
        """

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Give how many tokens a conversation takes, with what the chat template adds."""

    def reads_as_text(self, text: str) -> bool:
        """Tell whether the model reads nothing in a text as a token that steers it."""

    def stream(
        self,
        messages: Sequence[Message],
        *,
        citations: int,
        cancellation: Cancellation | None = None,
    ) -> Pieces:
        """Answer piece by piece, then say what it took; cite numbers up to ``citations`` alone.

        After a cancellation the pieces just end.

        Raises:
            StageError: the model cannot be asked, or breaks off.
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
    """Give the generator, whichever engine it has; it is closed at the end.

    ``gguf`` is the file for llama.cpp, whose own log goes to ``log``. Of an endpoint ``journal``
    keeps every answer, and gives it again.

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
    from llmpipe.backends.openai.journalled_stream import JournalledStreamer
    from llmpipe.backends.openai.stream import OpenAIStreamer

    key = reveal(config.api_key) if config.api_key else "none"
    with OpenAIStreamer(config.base_url or "", config.model, api_key=key) as endpoint:
        asked = endpoint if journal is None else JournalledStreamer(endpoint, journal)
        yield EndpointGenerator(asked, config)


class LlamaCppGenerator:
    """A GGUF that llama.cpp serves."""

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
        self, endpoint: OpenAIStreamer | JournalledStreamer, config: GeneratorConfig
    ) -> None:
        self._endpoint = endpoint
        self._places = threading.BoundedSemaphore(config.slots)
        self._temperature = config.temperature
        self.context = config.context
        self.max_tokens = config.max_tokens

    def check_alive(self) -> None:
        """See `Generator`. Whether an endpoint answers is seen when it is asked."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """See `Generator`. They are reckoned."""
        return sum(
            TOKENS_PER_MESSAGE - -len(message["content"].encode()) // BYTES_PER_TOKEN
            for message in messages
        )

    def reads_as_text(self, text: str) -> bool:
        """See `Generator`. An endpoint is trusted to keep its control tokens to itself."""
        return True

    def stream(
        self,
        messages: Sequence[Message],
        *,
        citations: int,
        cancellation: Cancellation | None = None,
    ) -> Pieces:
        """See `Generator`."""
        with self._places:
            pieces = self._endpoint.stream_chat(
                messages,
                max_tokens=self.max_tokens,
                temperature=self._temperature,
                cancellation=cancellation,
            )
            with closing(pieces):
                yield from without_other_numbers(pieces, citations)


def citation_grammar(citations: int) -> str:
    """Give the GBNF of text whose only square brackets are the numbers from 1 to ``citations``."""
    numbers = " | ".join(f'"{number}"' for number in range(1, citations + 1))
    return f'root ::= (text | "[" ({numbers}) "]")*\ntext ::= [^\\[\\]]'


def without_other_numbers(pieces: Iterable[Piece], citations: int) -> Iterator[Piece]:
    """Take numbers in brackets that are no source's out of a stream; ``[1, 2]`` becomes two.

    What may yet become such a number is held back until it is known. Reasoning stays as it is.
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
        held = _LISTED.sub(lambda match: _allowed(match[1], match[2], citations), held + piece)
        rest = _UNFINISHED.search(held)
        assert rest is not None
        if rest.start():
            yield held[: rest.start()]
        held = held[rest.start() :]
    if held:
        yield held


def _allowed(space: str, listed: str, citations: int) -> str:
    numbers = (int(number) for number in re.split(r"\D+", listed))
    allowed = "".join(f"[{number}]" for number in numbers if 1 <= number <= citations)
    return space + allowed if allowed else ""
