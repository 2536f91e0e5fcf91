"""Logits of trained tokens only: the same loss and gradients, and only where that is sure."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("AXOLOTL_DO_NOT_TRACK", "1")

pytestmark = pytest.mark.heavy

VOCABULARY = 97
SHAPE = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 2,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS = {
    "tied": ("Llama", {"tie_word_embeddings": True}),
    "untied": ("Llama", {"tie_word_embeddings": False}),
    "soft-capped": ("Gemma2", {"final_logit_softcapping": 3.0, "sliding_window": 8}),
    "scaled": ("Cohere", {"logit_scale": 0.25}),
    "experts": ("Mixtral", {"num_local_experts": 4, "output_router_logits": True}),
}


def build(kind: str, lora: tuple[str, ...] = ()) -> Any:
    """Build a small random model, with LoRA on the modules named."""
    transformers = pytest.importorskip("transformers")
    import torch

    name, settings = MODELS[kind]
    config = getattr(transformers, f"{name}Config")(**SHAPE, **settings)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    if lora:
        from peft import LoraConfig, get_peft_model

        options = LoraConfig(r=4, target_modules=list(lora), init_lora_weights=False)
        model = get_peft_model(model, options)
    return model.train()


def batch(*trained: tuple[int, int], width: int = 14) -> dict[str, Any]:
    """Return a batch of one row for each (first trained token, length)."""
    import torch

    torch.manual_seed(len(trained))
    ids = torch.randint(3, VOCABULARY, (len(trained), width))
    labels, mask = ids.clone(), torch.ones_like(ids)
    for row, (first, length) in enumerate(trained):
        labels[row, :first] = labels[row, length:] = -100
        mask[row, length:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def attached(model: Any) -> Any:
    """Return a copy of a model that computes logits of trained tokens only."""
    pytest.importorskip("axolotl.integrations.base")
    from llmpipe.backends.axolotl.plugins.axolotl_logits import TrainedPositions

    changed = copy.deepcopy(model)
    TrainedPositions().attach(changed)
    return changed


def require_equal(model: Any, changed: Any, inputs: dict[str, Any]) -> Any:
    """Require the same loss and gradients of both; return the logits of the changed model."""
    import torch

    results = []
    for each in (model, changed):
        each.zero_grad()
        output = each(**inputs)
        output.loss.backward()
        gradients = [p.grad for p in each.parameters() if p.grad is not None]
        results.append((output.loss.detach(), gradients))
    (loss, gradients), (other, others) = results
    torch.testing.assert_close(other, loss, rtol=1e-6, atol=0)
    assert len(gradients) == len(others) > 0
    for one, two in zip(gradients, others, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6 * float(one.abs().max()))
    return output.logits


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("lora", [(), ("q_proj", "lm_head")], ids=["full", "lora"])
def test_same_loss_and_gradients(kind: str, lora: tuple[str, ...]) -> None:
    """With a row of prompt only, padding, and the count of tokens in all batches of a step."""
    import torch

    model = build(kind, lora)
    inputs = batch((5, 14), (14, 14), (9, 11))
    for extra in ({}, {"num_items_in_batch": torch.tensor(37)}):
        logits = require_equal(model, attached(model), {**inputs, **extra})
        assert logits.shape == (1, 9 + 0 + 2, VOCABULARY)


def test_logits_are_whole_where_they_are_needed() -> None:
    """In an evaluation, without labels, and where nearly all or no tokens are trained."""
    import torch

    changed = attached(build("tied"))
    whole = (2, 14, VOCABULARY)
    assert changed(**batch((0, 14), (1, 14))).logits.shape == whole
    assert changed(**batch((5, 14), (9, 11))).logits.shape == (1, 11, VOCABULARY)
    untrained = batch((14, 14), (14, 14))
    assert changed(**untrained).logits.shape == whole
    assert changed(**untrained, num_items_in_batch=torch.tensor(9)).loss == 0
    unlabeled = batch((5, 14), (9, 11)) | {"labels": None}
    assert changed(**unlabeled).logits.shape == whole
    output = changed.eval()(**batch((5, 14), (9, 11)))
    assert output.logits.shape == whole
    assert output.loss == build("tied").eval()(**batch((5, 14), (9, 11))).loss


def test_a_training_with_accumulation_stays_the_same(tmp_path: Path) -> None:
    """Transformers' own trainer counts the tokens of all batches of a step."""
    import torch
    from transformers import Trainer, TrainingArguments

    rows = [
        {name: value[0] for name, value in batch((first, 13), width=14).items()}
        for first in (3, 12, 7, 13, 9, 5, 11, 4)
    ]
    curves = []
    for prepare in (lambda model: model, attached):
        arguments = TrainingArguments(
            str(tmp_path), per_device_train_batch_size=2, gradient_accumulation_steps=2,
            max_steps=3, learning_rate=1e-2, logging_steps=1, save_strategy="no", report_to=[],
            use_cpu=True, seed=1,
        )  # fmt: skip
        trainer = Trainer(prepare(build("tied", ("q_proj", "v_proj"))), arguments, None, rows)
        trainer.train()
        curves.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(curves[0]) == 3
    torch.testing.assert_close(*map(torch.tensor, curves), rtol=1e-5, atol=0)


def test_it_stays_away_where_it_is_not_sure() -> None:
    """Another trainer, another loss, another forward, a compiled model."""
    pytest.importorskip("axolotl.integrations.base")
    from axolotl.core.trainers.base import AxolotlTrainer
    from axolotl.utils.dict import DictDefault
    from transformers import BertConfig, BertLMHeadModel
    from trl import DPOTrainer

    from llmpipe.backends.axolotl.plugins.axolotl_logits import obstacle

    def found(
        model: Any, trainer_class: Any = AxolotlTrainer, cfg: Any = None, **arguments: Any
    ) -> str | None:
        class Built(trainer_class):  # type: ignore[misc]
            def __init__(self) -> None:
                self.model, self.args = model, SimpleNamespace(**arguments)
                self.compute_loss_func = None

        return obstacle(DictDefault(cfg or {}), Built())

    assert found(build("tied")) is None
    assert found(build("tied", ("lm_head",))) is None
    assert "a loss of its own" in str(found(build("tied"), DPOTrainer))
    assert "another loss" in str(found(build("tied"), orpo_alpha=0.1))
    assert "torch_compile" in str(found(build("tied"), cfg={"torch_compile": True}))
    chunked = build("tied")
    chunked.loss_function = lambda logits, labels, vocab_size: logits.sum()
    assert "another loss function" in str(found(chunked))
    fused = build("tied")
    fused.forward = lambda **inputs: None
    assert "in another way" in str(found(fused))
    bert = BertLMHeadModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2))
    assert "in another way" in str(found(bert))
