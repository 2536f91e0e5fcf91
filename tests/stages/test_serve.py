"""The serve stage, on the embedded GGUF: it asks, keeps the answers, and explains silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf_files import write_lora

from llmpipe.errors import StageError
from llmpipe.stages.serve import Serve
from llmpipe.testing import Done, make_config, run_stage

CONFIG = {"model": "./model.gguf", "sample": ["Say hi.", "Count to 3."], "max_tokens": 8}


def check(gguf: Path, folder: Path, **fields: Any) -> Done:
    """Check one GGUF, as a stage called chat."""
    config = {**CONFIG, "model": f"./{gguf.name}", **fields}
    return run_stage(Serve, config, folder, {"model": gguf}, name="chat", threads=2)


@pytest.mark.heavy
def test_the_answers_are_kept_and_shown(smollm2_gguf: Path, tmp_path: Path) -> None:
    """Each sample question has an answer in the artifact and in the summary."""
    result = check(smollm2_gguf, tmp_path)
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
        check(tmp_path / "broken.gguf", tmp_path)


@pytest.mark.heavy
def test_a_context_that_the_model_has_not_is_an_error(smollm2_gguf: Path, tmp_path: Path) -> None:
    """llama.cpp serves it with a shorter one, without a word: the check must not pass."""
    with pytest.raises(StageError, match="with a context of 8192 tokens, not 8448") as caught:
        check(smollm2_gguf, tmp_path, context=8448, max_tokens=1)
    assert caught.value.hint == "lower chat.context"


@pytest.mark.heavy
def test_other_models_and_adapters_are_asked_too(smollm2_gguf: Path, tmp_path: Path) -> None:
    """The answers are kept and shown by name: the same weights say the same, an adapter does not."""
    lora = write_lora(tmp_path / "lora.gguf", 1)
    config = {
        **CONFIG, "model": f"./{smollm2_gguf.name}", "sample": ["Say hi."], "context": 256,
        "compare": f"./{smollm2_gguf.name}", "adapters": {"lora": "./lora.gguf"},
    }  # fmt: skip
    inputs = {"model": smollm2_gguf, "compare": smollm2_gguf, "adapters.lora": lora}
    result = run_stage(Serve, config, tmp_path, inputs, name="chat", threads=1)
    check = json.loads(result.outputs["check"].read_text("utf-8"))
    assert check["compare"] == check["answers"]
    assert check["adapters"]["lora"] != check["answers"]
    assert result.summary is not None
    assert "A of lora: " in result.summary
    assert "A of the second model: " in result.summary
    taken = {**config, "adapters": {"chat": "./lora.gguf"}}
    inputs = {"model": smollm2_gguf, "compare": smollm2_gguf, "adapters.chat": lora}
    with pytest.raises(StageError, match="the adapter chat has the name of the stage"):
        run_stage(Serve, taken, tmp_path, inputs, name="chat", threads=1)


def test_where_it_listens_is_not_in_the_key() -> None:
    """Address, port, slots, threads and batch change no answer; the questions do."""
    plain = make_config(Serve, CONFIG)
    callers = {"port": 9000, "threads": 1, "batch": 64, "slots": 2, "api_key": "${secret:KEY}"}
    moved = make_config(Serve, CONFIG | callers)
    other = make_config(Serve, CONFIG | {"sample": ["Say ho."]})
    assert Serve.fingerprint(moved) == Serve.fingerprint(plain) != Serve.fingerprint(other)
