"""How the batch is chosen: by what a token of a prompt costs where the context is full."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.llama_cpp.batch import (
    ROUND,
    SMALLEST,
    Prefill,
    choose,
    serve_fluently,
)


@pytest.mark.parametrize(
    ("near", "far", "context", "tokens"),
    [
        (Prefill(32, 32 * 0.002), Prefill(1024, 1024 * 0.002), 2048, 64),
        (Prefill(32, 32 * 0.0005), Prefill(1024, 1024 * 0.0005), 2048, 256),
        (Prefill(32, 32 * 0.00001), Prefill(1024, 1024 * 0.00001), 2048, 2048),
        (Prefill(32, 32 * 0.2), None, 2048, 16),
        (Prefill(32, 32 * 0.002), Prefill(1024, 1024 * 0.003), 2048, 32),
        (Prefill(32, 32 * 0.002), Prefill(1024, 1024 * 0.003), 32768, 16),
        (Prefill(32, 32 * 0.004), Prefill(1024, 1024 * 0.002), 2048, 64),
    ],
)
def test_the_batch_follows_the_machine(
    near: Prefill, far: Prefill | None, context: int, tokens: int
) -> None:
    """Quick machines take more; a long context, and a start that was slow, are reckoned with."""
    assert choose(near, far, context).tokens == tokens


@given(
    st.floats(1e-6, 10), st.floats(1e-6, 10), st.integers(64, 1024), st.integers(1024, 1_000_000)
)
def test_a_round_keeps_its_time(first: float, mean: float, tokens: int, context: int) -> None:
    """Whatever is measured: a power of two, in time where it is not the smallest one."""
    chosen = choose(Prefill(32, 32 * first), Prefill(tokens, tokens * mean), context)
    assert chosen.tokens in {2**power for power in range(4, 12)}
    assert chosen.speed is not None
    assert chosen.tokens == SMALLEST or chosen.tokens / chosen.speed <= ROUND


@pytest.mark.heavy
def test_a_measured_server_answers(smollm2_gguf: Path) -> None:
    """Also by so short a context that there is little to measure."""
    with serve_fluently(
        smollm2_gguf, threads=1, context=16, slots=3, alias="chat", api_key="k", batch=None
    ) as (server, batch):
        assert batch.tokens >= SMALLEST
        assert server.complete("Once", max_tokens=2)
