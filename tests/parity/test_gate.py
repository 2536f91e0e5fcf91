"""The parity gate passes equal sides and fails on every kind of sabotage.

One real GGUF is served; the model folder that it is compared with is sabotaged.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmpipe.backends.llama_cpp.serve import LlamaServer, serve_gguf
from llmpipe.backends.reasoning import Reply
from llmpipe.errors import StageError
from llmpipe.parity.gate import Parity, Reference, continuations, verify

pytestmark = pytest.mark.heavy

Gate = Callable[[Reference], Parity]


@pytest.fixture(scope="module")
def server(smollm2_gguf: Path) -> Iterator[LlamaServer]:
    """The embedded GGUF, served."""
    with serve_gguf(smollm2_gguf, threads=2) as running:
        yield running


@pytest.fixture
def gate(smollm2_gguf: Path, server: LlamaServer) -> Gate:
    """Compare a reference with the served GGUF."""
    return lambda reference: verify(reference, smollm2_gguf, server, label="q4_1.gguf")


@pytest.fixture
def folder(tiny_llama: Path, tmp_path: Path) -> Path:
    """A copy of a model folder with the GGUF's own tokenizer, without weights."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_llama, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    return copy


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")


def test_equal_sides_pass(gate: Gate, folder: Path) -> None:
    """The imported tokenizer reads every golden chat and text as llama.cpp does."""
    parity = gate(Reference.load(folder))
    assert parity.vocabulary == 49152
    assert parity.special_tokens == 17
    assert parity.end_of_turn == 2
    assert parity.refused_chats == ()
    assert parity.tokens > 5000


def test_wrong_end_token(gate: Gate, folder: Path) -> None:
    """Another EOS fails, and the message shows both tokens."""
    edit_json(folder / "tokenizer_config.json", eos_token="<|im_start|>")
    with pytest.raises(StageError, match="eos_token differs") as caught:
        gate(Reference.load(folder))
    assert caught.value.hint == "Hugging Face   1 '<|im_start|>'\nllama.cpp      2 '<|im_end|>'"


def test_a_head_that_was_left_out(gate: Gate, folder: Path) -> None:
    """An untied model whose GGUF has no head, as the converter writes for Gemma, is refused."""
    from safetensors.torch import save_file
    from torch import zeros

    save_file({"lm_head.weight": zeros(1)}, folder / "model.safetensors")
    assert not Reference.load(folder).own_head  # tied: the file's tensor is of no account
    edit_json(folder / "config.json", tie_word_embeddings=False)
    with pytest.raises(StageError, match="output head is missing"):
        gate(Reference.load(folder))


def test_named_tokenizer_class_splits_otherwise(gate: Gate, folder: Path) -> None:
    """Regression: GPT2Tokenizer in transformers drops the split of digits in 'a  1'."""
    edit_json(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    with pytest.raises(StageError, match="token 1 of 51 differs") as caught:
        gate(Reference.load(folder))
    assert caught.value.hint is not None
    assert "Hugging Face   216 'Ġ', 216 'Ġ'" in caught.value.hint
    assert "llama.cpp      256 'ĠĠ'" in caught.value.hint


def test_tokenizer_imported_by_transformers(gate: Gate, folder: Path, smollm2_gguf: Path) -> None:
    """Regression: transformers' own import of this GGUF's tokenizer must not pass."""
    from transformers import AutoTokenizer

    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    tokenizer = AutoTokenizer.from_pretrained(smollm2_gguf.parent, gguf_file=smollm2_gguf.name)
    tokenizer.save_pretrained(folder)
    with pytest.raises(StageError, match="is not read as the model was trained"):
        gate(Reference.load(folder))


def test_changed_template(gate: Gate, folder: Path) -> None:
    """A template that writes one space less is found, and the message shows where."""
    path = folder / "chat_template.jinja"
    path.write_text(
        path.read_text("utf-8").replace("message['content']", "message['content'] | trim")
    )
    with pytest.raises(StageError, match=r"chat 'padded content'.*different text") as caught:
        gate(Reference.load(folder))
    assert caught.value.hint is not None
    assert "Hugging Face   'two before" in caught.value.hint


def test_lost_template(gate: Gate, folder: Path) -> None:
    """A template on only one side is a difference."""
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(StageError, match="the GGUF has a chat template and the model has none"):
        gate(Reference.load(folder))


def test_template_that_refuses(gate: Gate, folder: Path) -> None:
    """Chats that the model's template refuses are counted separately."""
    path = folder / "chat_template.jinja"
    refusal = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    )
    path.write_text(refusal + path.read_text("utf-8"), "utf-8")
    parity = gate(Reference.load(folder))
    assert parity.refused_chats == ("system", "empty system", "system and turns")


def test_more_tokens_than_embeddings(gate: Gate, folder: Path) -> None:
    """A token that was added without resizing the model fails before anything is tokenized."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<|new|>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    with pytest.raises(StageError, match="49153 tokens, but the model has only 49152"):
        gate(Reference.load(folder))


def test_resized_model(gate: Gate, folder: Path) -> None:
    """More embedding rows than in the GGUF are found."""
    edit_json(folder / "config.json", vocab_size=49153)
    with pytest.raises(StageError, match="49153 embedding rows, the GGUF 49152"):
        gate(Reference.load(folder))


def test_end_of_turn_that_does_not_stop(
    folder: Path, smollm2_gguf: Path, server: LlamaServer
) -> None:
    """A turn whose last token does not end generation fails, or warns if allowed."""
    reference = replace(Reference.load(folder), eos_ids=frozenset({0}))
    with pytest.raises(StageError, match=r"ends a turn with 2 '<\|im_end\|>'"):
        verify(reference, smollm2_gguf, server, label="m")
    warnings: list[str] = []
    verify(
        reference,
        smollm2_gguf,
        server,
        label="m",
        require_end_of_turn=False,
        warn=warnings.append,
    )
    assert "does not end generation in the model" in warnings[0]


def test_begin_token_too_many(folder: Path, smollm2_gguf: Path, tmp_path: Path) -> None:
    """A GGUF whose tokenizer adds a BOS that training did not have is found."""
    from gguf import GGUFReader

    changed = tmp_path / "bos.gguf"
    shutil.copy(smollm2_gguf, changed)
    reader = GGUFReader(changed, "r+")
    for key, value in (("add_bos_token", True), ("bos_token_id", 0)):
        field = reader.fields[f"tokenizer.ggml.{key}"]
        field.parts[field.data[0]][0] = value
    reader.data.flush()
    edit_json(folder / "tokenizer_config.json", bos_token="<|endoftext|>")
    with (
        serve_gguf(changed, threads=2) as running,
        pytest.raises(StageError, match=r"llama\.cpp puts '<\|endoftext\|>' before"),
    ):
        verify(Reference.load(folder), changed, running, label="bos.gguf")


def test_continuations_count_tokens(folder: Path) -> None:
    """Agreement is counted in tokens of the model's answer, up to the first difference."""
    tokenizer = Reference.load(folder).tokenizer
    expected = [Reply("It is red"), Reply("Yes"), Reply("", "It is red")]
    actual = [Reply("It is blue"), Reply("Yes"), Reply("", "It is blue")]
    rows = continuations(["q", "q", "q"], expected, actual, tokenizer)
    assert [(row["agreeing_tokens"], row["tokens"]) for row in rows] == [(2, 3), (1, 1), (2, 3)]
    assert "reasoning" not in rows[0]
    assert rows[2]["reasoning"] == {"huggingface": "It is red", "llama.cpp": "It is blue"}
