"""Scoring and answering with real weights: a tiny random Llama with SmolLM2's own tokenizer."""

from __future__ import annotations

import json
import shutil

import pytest
from scripted_model import OPENS_THINKING

from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy

CHATS = [
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a permit?"},
        {"role": "assistant", "content": "Leave to build."},
    ],
    [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello there, friend 🌍"}],
    [
        {"role": "user", "content": "One " * 40},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"},
        {"role": "assistant", "content": "Four, five and six."},
    ],
]


@pytest.fixture(scope="module")
def loaded(tiny_llama):
    """The tiny model, loaded once."""
    from llmpipe.backends.huggingface.inference import load_model

    return load_model(tiny_llama, threads=1)


def test_answer_is_the_last_turn_and_its_end(loaded):
    """What is scored is the answer's text and the end-of-turn token, not the line break after."""
    from llmpipe.backends.huggingface.chat_tokens import encode_answer

    for chat in CHATS:
        encoded = encode_answer(loaded.tokenizer, chat)
        answer = loaded.tokenizer.decode(encoded.ids[encoded.start :])
        assert answer == chat[-1]["content"] + "<|im_end|>"


def test_batched_losses_equal_a_plain_computation(loaded):
    """Padding, batching and sorting change nothing: the same as one forward pass per chat."""
    import torch

    from llmpipe.backends.huggingface.chat_tokens import encode_answer
    from llmpipe.backends.huggingface.inference import answer_losses

    done = []
    losses = answer_losses(loaded, CHATS, on_done=done.append)
    assert sum(done) == len(CHATS)
    for chat, loss in zip(CHATS, losses, strict=True):
        encoded = encode_answer(loaded.tokenizer, chat)
        with torch.inference_mode():
            logits = loaded.model(torch.tensor([encoded.ids])).logits[0].log_softmax(-1)
        expected = -sum(
            logits[i - 1, encoded.ids[i]].item() for i in range(encoded.start, len(encoded.ids))
        )
        assert loss.tokens == len(encoded.ids) - encoded.start
        assert loss.nll == pytest.approx(expected, rel=1e-5)


def test_small_batches_give_the_same_losses(loaded, monkeypatch):
    """One chat at a time scores as all together."""
    from llmpipe.backends.huggingface import inference as transformers

    together = transformers.answer_losses(loaded, CHATS)
    monkeypatch.setattr(transformers, "TOKENS_PER_BATCH", 1)
    alone = transformers.answer_losses(loaded, CHATS)
    for a, b in zip(together, alone, strict=True):
        assert a.nll == pytest.approx(b.nll, rel=1e-5)


def test_greedy_answers_do_not_depend_on_the_batch(loaded):
    """Answers come back in the order of the questions, whatever shares a batch with them."""
    from llmpipe.backends.huggingface.inference import greedy_answers

    asked = [chat[:-1] for chat in CHATS]
    together = greedy_answers(loaded, asked, 8, 3)
    assert together == greedy_answers(loaded, asked, 8, 1)
    assert all(reply.truncated for reply in together)  # each wrote its eight tokens


def test_answers_stop_at_the_end_of_turn(loaded):
    """Declared EOS and the template's end-of-turn token stop an answer; both are found."""
    from llmpipe.backends.huggingface.inference import _before_stop, stop_token_ids

    end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in stop_token_ids(loaded)
    assert _before_stop([5, 6, end, 7], [end]) == [5, 6]


def test_adapter_is_applied_on_top(loaded, tiny_llama, tmp_path):
    """A LoRA adapter changes the losses, and an untrained one does not."""
    import torch
    from peft import LoraConfig, get_peft_model

    from llmpipe.backends.huggingface.inference import answer_losses, load_model, opened_model

    plain = answer_losses(loaded, CHATS)
    wrapped = get_peft_model(
        load_model(tiny_llama).model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    )
    wrapped.save_pretrained(tmp_path / "untrained")
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    wrapped.save_pretrained(tmp_path / "trained")
    with opened_model(tiny_llama, tmp_path / "untrained") as model:
        assert [loss.nll for loss in answer_losses(model, CHATS)] == pytest.approx(
            [loss.nll for loss in plain]
        )
    with opened_model(tiny_llama, tmp_path / "trained") as model:
        losses = answer_losses(model, CHATS)
    assert all(abs(a.nll - b.nll) > 1e-3 for a, b in zip(losses, plain, strict=True))


def test_context_is_not_exceeded_silently(loaded):
    """A row longer than the model's context is an error that says what to do."""
    from llmpipe.backends.huggingface.inference import answer_losses, greedy_answers

    chat = [{"role": "user", "content": "word " * 2500}, {"role": "assistant", "content": "x"}]
    with pytest.raises(StageError, match="the model's context holds 2048"):
        answer_losses(loaded, [chat])
    with pytest.raises(StageError, match="the model's context holds 2048"):
        greedy_answers(loaded, [CHATS[0][:-1]], 2048, 1)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('no system, please') }}", "no system, please"),
        ("{{ messages|length }}{% for m in messages %}{{ m.content }}{% endfor %}", "differently"),
    ],
)
def test_unfit_templates_are_explained(tiny_llama, template, told):
    """No template, a template that refuses, one that rewrites the question: each is said."""
    from llmpipe.backends.huggingface.chat_tokens import encode_answer
    from llmpipe.backends.huggingface.inference import load_tokenizer

    tokenizer = load_tokenizer(tiny_llama)
    tokenizer.chat_template = template
    with pytest.raises(StageError, match=told):
        encode_answer(tokenizer, CHATS[0])


def test_a_template_that_opens_the_thinking(tiny_llama):
    """Regression: neither its loss nor its stops could be told, for want of a common beginning.

    The answer is scored as the template writes a finished turn, and the turn's end is found.
    """
    from llmpipe.backends.huggingface.chat_tokens import encode_answer, turn_ends
    from llmpipe.backends.huggingface.inference import load_tokenizer

    tokenizer = load_tokenizer(tiny_llama)
    tokenizer.chat_template = OPENS_THINKING
    encoded = encode_answer(tokenizer, CHATS[0])
    assert tokenizer.decode(encoded.ids[encoded.start :]) == "Leave to build.<|im_end|>"
    assert tokenizer.convert_ids_to_tokens(turn_ends(tokenizer)) == ["<|im_end|>"]


def test_the_settings_of_the_folder_are_back_after_generating(loaded):
    """They are taken away only while the model writes."""
    from llmpipe.backends.huggingface.inference import greedy_answers

    loaded.model.generation_config.min_new_tokens = 3
    greedy_answers(loaded, [CHATS[1][:-1]], 2, 1)
    assert loaded.model.generation_config.min_new_tokens == 3
    loaded.model.generation_config.min_new_tokens = None


def test_unusable_folders_are_explained(tiny_llama, tmp_path):
    """A missing tokenizer, a folder that is not a model and a broken weight file are errors."""
    from llmpipe.backends.huggingface.inference import load_model, load_tokenizer

    with pytest.raises(StageError, match="cannot be loaded as a causal language model"):
        load_model(tmp_path)
    with pytest.raises(StageError, match="no usable tokenizer"):
        load_tokenizer(tmp_path)
    broken = shutil.copytree(tiny_llama, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not safetensors")
    with pytest.raises(StageError, match="broken: cannot be loaded"):
        load_model(broken)


def test_missing_weights_are_no_model(tiny_llama, tmp_path):
    """A folder that lacks a weight is refused; it would be filled with random numbers."""
    from safetensors.torch import load_file, save_file

    from llmpipe.backends.huggingface.inference import load_model

    folder = shutil.copytree(tiny_llama, tmp_path / "partial")
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(StageError, match=r"partial: weights are missing \(1: model\.norm"):
        load_model(folder)


def test_code_in_a_model_folder_is_not_run(tiny_llama, tmp_path):
    """A folder that asks for its own code is refused, and the code does not run."""
    from llmpipe.backends.huggingface.inference import load_model

    folder = shutil.copytree(tiny_llama, tmp_path / "own-code")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["model_type"] = "own"
    config["auto_map"] = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(StageError, match="own-code: cannot be loaded"):
        load_model(folder)
    assert not (tmp_path / "ran").exists()


def test_token_counts_are_those_of_single_texts(loaded):
    """Counting in batches gives what counting one by one gives."""
    from llmpipe.backends.huggingface.chat_tokens import token_counts, token_ids

    texts = ["a", "b c d", "🌍 <|im_end|>"] * 3
    counts = list(token_counts(loaded.tokenizer, iter(texts), at_once=2))
    assert counts == [len(token_ids(loaded.tokenizer, text)) for text in texts]
