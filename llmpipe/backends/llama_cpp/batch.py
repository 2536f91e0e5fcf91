"""Serve a GGUF so that no prompt, however long, stops the other answers for long.

llama.cpp's server works in rounds. A round takes the next token of every answer under way, fills up
with tokens of the prompts that have come, ``n_batch`` in all, and is computed in one go. Only
between two rounds are words sent, and is it seen that a caller has hung up: the longest pause of a
stream is the time of one round, whatever the prompts. llama.cpp's own 2,048 tokens take a small
model on two cores ten seconds and more.

Here the batch is chosen by how quick this model is on this machine: a round of prompt tokens is to
take `ROUND` seconds where the context is almost full, which is when it takes longest. How quick the
machine will be while others work on it is not known: the aim leaves a factor of four to a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from llmpipe.backends.llama_cpp.client import LlamaServer
from llmpipe.backends.llama_cpp.serve import BATCH, require_context, serve_gguf

ROUND = 0.25
"""Seconds that a round of a long prompt is to take."""
SMALLEST = 16
"""Tokens of a prompt that a round takes at least: fewer make long prompts slow."""
TRIED = 64
"""The batch that is measured with; where it suits, the server need not be started again."""
NEAR = 32
"""Tokens of the first prompt that is measured."""
FAR = 1024
"""Tokens of the second one, at most."""
PATIENCE = 2.0
"""Seconds that the second prompt may take."""


@dataclass(frozen=True, slots=True)
class Prefill:
    """A prompt that was computed: its tokens, and the seconds that it took."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Batch:
    """How many tokens of prompts a round takes."""

    tokens: int
    speed: float | None = None
    """Tokens a second, where the context is full; None where the batch was given."""


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
) -> Iterator[tuple[LlamaServer, Batch]]:
    """Serve ``model`` for as long as the block lasts, by a batch that is given or measured.

    See `llmpipe.backends.llama_cpp.serve.serve_gguf` for the rest.

    Raises:
        StageError: the model cannot be served, or not with so long a context.
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
                batch=tokens + slots - 1,  # the others' tokens take no room from the prompt's
            )
            return held.enter_context(serving)

        server = start(TRIED if batch is None else batch)
        require_context(server, context, model.name, f"{alias}.context")
        chosen = measured(server, context) if batch is None else Batch(batch)
        if batch is None and chosen.tokens != TRIED:
            held.close()
            server = start(chosen.tokens)
        yield server, chosen


def measured(server: LlamaServer, context: int) -> Batch:
    """Choose a batch by how long a short prompt and a longer one take."""
    near = _computed(server, min(NEAR, context // 2))
    tokens = min(FAR, context - 2, int(near.tokens / near.seconds * PATIENCE))
    far = _computed(server, tokens) if tokens >= 2 * near.tokens else None
    return choose(near, far, context)


def choose(near: Prefill, far: Prefill | None, context: int) -> Batch:
    """Choose the largest power of two of tokens that a round computes in time.

    A token takes so much, and so much more for each one before it: two prompts tell both. The last
    token that the context has room for decides.
    """
    cost = near.seconds / near.tokens
    if far is not None:
        mean = far.seconds / far.tokens  # of a token in the middle of that prompt
        slope = (mean - cost) / ((far.tokens - near.tokens) / 2)
        cost = cost + slope * (context - near.tokens / 2) if slope > 0 else mean
    tokens = SMALLEST
    while tokens < BATCH and 2 * tokens * cost <= ROUND:
        tokens *= 2
    return Batch(tokens, 1 / cost)


def _computed(server: LlamaServer, tokens: int) -> Prefill:
    return Prefill(tokens, max(server.prefill(tokens), 1e-6))
