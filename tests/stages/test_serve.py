"""The serve stage, on the embedded GGUF: it asks, keeps the answers, and explains silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmpipe.contracts import Artifact, StageContext
from llmpipe.errors import StageError
from llmpipe.stages.serve import Serve, ServeConfig

CONFIG = ServeConfig(kind="serve", model="gguf", sample=("Say hi.", "Count to 3."), max_tokens=8)


def context(gguf: Path, root: Path, config: ServeConfig = CONFIG) -> StageContext[ServeConfig]:
    """A check of one GGUF in a folder of its own."""
    out, work = root / "out", root / "work"
    out.mkdir()
    work.mkdir()
    inputs = {"model": Artifact(gguf, "gguf", "", gguf.name)}
    return StageContext(config, "chat", inputs, out, work, work, work, root, threads=2)


@pytest.mark.heavy
def test_the_answers_are_kept_and_shown(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Each sample question has an answer in the artifact and in the summary."""
    result = Serve.run(context(smollm2_gguf, tmp_path))
    answers = json.loads(result.outputs["check"].read_text("utf-8"))["answers"]
    assert [answer["question"] for answer in answers] == ["Say hi.", "Count to 3."]
    assert all(answer["answer"].strip() for answer in answers)
    assert result.summary is not None
    assert "Q: Count to 3.\nA: " in result.summary


@pytest.mark.heavy
def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    """A file that llama.cpp cannot read ends in a message with its name."""
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    with pytest.raises(StageError, match=r"broken\.gguf"):
        Serve.run(context(tmp_path / "broken.gguf", tmp_path))


@pytest.mark.heavy
def test_a_context_that_the_model_has_not_is_an_error(smollm2_gguf: Path, tmp_path: Path) -> None:
    """llama.cpp serves it with a shorter one, without a word: the check must not pass."""
    config = ServeConfig(kind="serve", model="gguf", context=8448, max_tokens=1)
    with pytest.raises(StageError, match="with a context of 8192 tokens, not 8448") as caught:
        Serve.run(context(smollm2_gguf, tmp_path, config))
    assert caught.value.hint == "lower chat.context"


def test_where_it_listens_is_not_in_the_key() -> None:
    """Address, port, slots, threads and batch change no answer; the questions do."""
    moved = ServeConfig(
        kind="serve", model="gguf", sample=CONFIG.sample, max_tokens=8, port=9000, threads=1,
        batch=64,
    )  # fmt: skip
    other = ServeConfig(kind="serve", model="gguf", sample=("Say ho.",), max_tokens=8)
    assert Serve.fingerprint(moved) == Serve.fingerprint(CONFIG) != Serve.fingerprint(other)
