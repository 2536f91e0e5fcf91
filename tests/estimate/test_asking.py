"""A training step on fake tensors holds what it holds for real; the answer is remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmpipe.estimate.asking import ask
from llmpipe.estimate.bounds import upper_bound
from llmpipe.estimate.model_config import ModelConfig

TINY = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
DOCUMENT = {
    "datasets": [{"path": "rows.parquet", "ds_type": "parquet", "type": "chat_template"}],
    "output_dir": "out", "sequence_len": 64, "micro_batch_size": 2, "gradient_accumulation_steps": 1,
    "num_epochs": 1, "learning_rate": 1e-4, "optimizer": "adamw_torch", "bf16": True,
}  # fmt: skip


@pytest.mark.heavy
def test_the_answer_is_remembered_and_says_of_what_it_consists(tmp_path: Path) -> None:
    """The second time no subprocess is asked; Adam's states are twice the weights."""
    model = ModelConfig(TINY)
    assert ask(DOCUMENT, model, cuda=True, memo=tmp_path, quick=True) is None
    found = ask(DOCUMENT, model, cuda=True, memo=tmp_path, quick=False)
    assert found is not None
    assert "error" not in found, found
    peak = found["peak"]
    assert peak["optimizer"] == pytest.approx(2 * peak["weights"], rel=0.05)
    assert peak["logits"] > 0
    assert peak["adapter"] == 0
    bound = upper_bound(TINY, DOCUMENT)
    assert bound is not None
    assert sum(peak.values()) < bound
    assert (
        ask({**DOCUMENT, "output_dir": "elsewhere"}, model, cuda=True, memo=tmp_path, quick=True)
        == found
    )
    assert (
        ask({**DOCUMENT, "micro_batch_size": 3}, model, cuda=True, memo=tmp_path, quick=True)
        is None
    )
    unknown = ask({**DOCUMENT, "optimizer": "sdg"}, model, cuda=True, memo=tmp_path, quick=False)
    assert unknown is not None
    assert "sdg" in unknown["error"]
    broken = ModelConfig({**TINY, "model_type": "no_such_model"})
    strange = ask(DOCUMENT, broken, cuda=True, memo=tmp_path, quick=False)
    assert strange is not None
    assert "no_such_model" in strange["error"]
    assert len(list(tmp_path.glob("estimate-*.json"))) == 1  # what failed is asked again
    assert json.loads(next(tmp_path.glob("estimate-*.json")).read_text()) == found
