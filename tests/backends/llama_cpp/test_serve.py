"""The llama.cpp server: it starts, is the one that answers, says why when it cannot, and ends."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from llmpipe.backends.llama_cpp.serve import serve_gguf
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy


def test_a_model_is_served_and_gone_afterwards(smollm2_gguf: Path) -> None:
    """Tokens, completions and chats come from the process that was started; then it is gone.

    A log that is kept only for errors does not grow meanwhile.
    """
    with serve_gguf(smollm2_gguf, threads=2, context=512) as server:
        logged = os.fstat(server.log.fileno()).st_size
        assert server.tokenize("Hello") == server.tokenize("Hello")
        assert server.chat([{"role": "user", "content": "Say hi."}], max_tokens=4).answer
        assert server.complete("Once upon a", max_tokens=3)
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        question = [{"role": "user", "content": "Give a number."}]
        assert server.chat(question, max_tokens=24, json_schema=schema).answer.startswith("{")
        assert os.fstat(server.log.fileno()).st_size == logged
        assert httpx.get(f"{server.url}/props").status_code == 401  # nobody else may ask it
        process = server.process
    assert process.poll() is not None


def test_replies_do_not_depend_on_the_threads(
    smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The likeliest and the drawn ones; the threads wait asleep, unless the user says otherwise."""
    said = []
    for threads, spins in ((1, None), (2, None), (2, "5")):
        if spins:
            monkeypatch.setenv("GOMP_SPINCOUNT", spins)
        with serve_gguf(smollm2_gguf, threads=threads, context=256) as server:
            said.append(
                [
                    server.complete("Once upon a", max_tokens=12, temperature=temperature, seed=7)
                    for temperature in (0.0, 0.8)
                ]
            )
            environment = Path(f"/proc/{server.process.pid}/environ").read_bytes().split(b"\0")
            assert f"GOMP_SPINCOUNT={spins or 1000}".encode() in environment
    assert said[0] == said[1] == said[2]


def test_a_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    """Garbage in place of a model ends in a message with the file's name."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(StageError, match=r"broken\.gguf"), serve_gguf(path, threads=1):
        pass
