"""Serve a GGUF so that a long prompt does not stop the other answers for long.

llama.cpp's server works in rounds. A round contains the next token of every answer in progress,
filled up with tokens of new prompts to ``n_batch`` tokens. The server sends words and notices
disconnects only between two rounds, so the longest pause of a stream is one round. With
llama.cpp's default of 2,048 tokens, a small model on two cores takes ten seconds and more.

This module chooses the batch by the measured speed of the model on this machine. A round of prompt
tokens should take `ROUND` seconds when the context is almost full, which is the slowest case. This
leaves a factor of four to one second, for other work on the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.backends.llama_cpp.engines import ENGINES, EngineName
from llmpipe.backends.llama_cpp.serve import BATCH, require_context, serve_gguf

ROUND = 0.25
"""The target time of a round of a long prompt, in seconds."""
SMALLEST = 16
"""The minimum tokens of a prompt in a round; fewer make long prompts slow."""
TRIED = 64
"""The batch of the measurement. If it fits, the server does not have to start again."""
NEAR = 32
"""The tokens of the first measured prompt."""
FAR = 1024
"""The maximum tokens of the second measured prompt."""
PATIENCE = 2.0
"""The maximum expected seconds of the second prompt."""


ALONE = 512
"""The batch of an engine that computes one conversation at a time. A disconnect is noticed after
the prompt."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """A computed prompt: its tokens, and the time for them in seconds."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Batch:
    """The number of prompt tokens in a round."""

    tokens: int
    speed: float | None = None
    """Tokens per second at the end of the context; None if the batch was not measured."""


@contextmanager
def serve_fluently(
    model: Path,
    *,
    threads: int,
    context: int,
    slots: int,
    alias: str,
    batch: int | None,
    api_key: str | None = None,
    engine: EngineName = "xllamacpp",
    adapters: Sequence[Path] = (),
) -> Iterator[tuple[LlamaServer, Batch]]:
    """Serve ``model`` during the block, with a given or a measured batch.

    With an engine whose answers do not pause one another, nothing is measured.

    See `llmpipe.backends.llama_cpp.serve.serve_gguf` for the other arguments.

    Raises:
        StageError: The model cannot be served, or not with such a long context.
    """
    with ExitStack() as held:

        def start(tokens: int) -> LlamaServer:
            serving = serve_gguf(
                model,
                threads=threads,
                context=context,
                slots=slots,
                alias=alias,
                api_key=api_key,
                cache_prompt=True,
                batch=tokens + slots - 1,  # room for the tokens of the other answers
                engine=engine,
                adapters=adapters,
            )
            return held.enter_context(serving)

        if batch is None and not ENGINES[engine].pauses:
            batch = ALONE
        server = start(TRIED if batch is None else batch)
        stage = alias.partition(".")[0]  # a second model is called STAGE.compare
        require_context(server, context, model.name, f"{stage}.context")
        chosen = measured(server, context) if batch is None else Batch(batch)
        if batch is None and chosen.tokens != TRIED:
            held.close()
            server = start(chosen.tokens)
        yield server, chosen


def measured(server: LlamaServer, context: int) -> Batch:
    """Choose a batch by measuring a short prompt and a longer one."""
    near = _computed(server, min(NEAR, context // 2))
    tokens = min(FAR, context - 2, int(near.tokens / near.seconds * PATIENCE))
    far = _computed(server, tokens) if tokens >= 2 * near.tokens else None
    return choose(near, far, context)


def choose(near: Prefill, far: Prefill | None, context: int) -> Batch:
    """Choose the largest power of two of tokens that a round computes in time.

    The time for a token has a constant part and a part for each token before it. Two prompts
    determine both. The time for the last token of the context decides.
    """
    cost = near.seconds / near.tokens
    if far is not None:
        mean = far.seconds / far.tokens  # for a token in the middle of that prompt
        slope = (mean - cost) / ((far.tokens - near.tokens) / 2)
        cost = cost + slope * (context - near.tokens / 2) if slope > 0 else mean
    tokens = SMALLEST
    while tokens < BATCH and 2 * tokens * cost <= ROUND:
        tokens *= 2
    return Batch(tokens, 1 / cost)


def _computed(server: LlamaServer, tokens: int) -> Prefill:
    return Prefill(tokens, max(server.prefill(tokens), 1e-6))
