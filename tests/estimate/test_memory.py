"""The formulas for what cannot be run on fake tensors: sharding, offloading, a GPU's own needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmpipe.contracts import Hardware
from llmpipe.estimate.bounds import lower_bound, surely_within, upper_bound
from llmpipe.estimate.fitting import changes_that_fit, gist, largest_micro_batch
from llmpipe.estimate.memory import CUDA_CONTEXT, Memory, Sharding, memory_of

BILLION = 10**9


def answer(parameters: int, trainable: int | None = None, **parts: int) -> dict[str, Any]:
    """What the subprocess answers for a model of so many parameters in bfloat16."""
    trained = parameters if trainable is None else trainable
    peak = {
        "weights": 2 * parameters,
        "adapter": 0,
        "gradients": 2 * trained,
        "optimizer": 4 * trained,
        "logits": 0,
        "activations": 0,
        **parts,
    }
    sizes = {
        "parameters": parameters,
        "largest_layer": 0,
        "largest_quantized": 0,
        "cache_per_token": 131072,
    }
    return {"peak": peak, "trainable": trained, "sizes": sizes, "notes": []}


@pytest.mark.parametrize(("stage", "expected"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_model_states_are_those_of_the_zero_paper(stage: int, expected: float) -> None:
    """7.5 billion parameters on 64 GPUs (arXiv:1910.02054, figure 1): GB on each."""
    document = {"deepspeed": {"zero_optimization": {"stage": stage}}, "sequence_len": 1}
    memory = memory_of(answer(int(7.5 * BILLION)), document, Hardware("cuda", 80 * BILLION, 64))
    states = sum(memory.parts.get(name, 0) for name in ("weights", "gradients", "optimizer"))
    assert states / BILLION == pytest.approx(expected, abs=0.05)


def test_what_is_offloaded_is_in_main_memory() -> None:
    """The optimizer of ZeRO-2 with offloading takes no GPU memory, and 12 bytes a parameter here."""
    zero = {"stage": 2, "offload_optimizer": {"device": "cpu"}}
    document = {"deepspeed": {"zero_optimization": zero}, "sequence_len": 1}
    memory = memory_of(answer(BILLION), document, Hardware("cuda", 24 * BILLION, 2))
    assert "optimizer" not in memory.parts
    assert memory.host > 12 * BILLION


def test_a_file_a_name_and_fsdp(tmp_path: Path) -> None:
    """DeepSpeed's settings may be a file or only a name; FSDP shards everything."""
    file = tmp_path / "ds.json"
    file.write_text(
        json.dumps({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}})
    )
    assert Sharding.of({"deepspeed": str(file)}, 4) == Sharding(4, 3, True, False, True)
    assert Sharding.of({"deepspeed": "deepspeed_configs/zero2.json"}, 4).stage == 2
    short = Sharding.of({"deepspeed": "deepspeed/zero3-offload.json"}, 4)
    assert short == Sharding(4, 3, True, True, True)
    assert Sharding.of({"deepspeed": {"zero_optimization": {"stage": "auto"}}}, 4).stage == 0
    assert Sharding.of({"fsdp_config": {"offload_params": True}}, 2).offload_weights
    assert Sharding.of({}, 2) == Sharding(2)


def test_dpo_of_all_weights_has_a_second_model_and_grpo_a_cache() -> None:
    """With an adapter the reference is the same model with the adapter off."""
    gpu = Hardware("cuda", 80 * BILLION, 1)
    full = memory_of(answer(BILLION), {"rl": "dpo", "sequence_len": 1}, gpu)
    assert full.parts["reference model"] == 2 * BILLION
    lora = memory_of(answer(BILLION), {"rl": "dpo", "adapter": "lora", "sequence_len": 1}, gpu)
    assert "reference model" not in lora.parts
    grpo = memory_of(
        answer(BILLION), {"rl": "grpo", "sequence_len": 1000, "micro_batch_size": 8}, gpu
    )
    assert grpo.parts["generation cache"] == 8 * 1000 * 131072


def test_a_gpu_takes_something_for_itself_and_a_cpu_the_process() -> None:
    """Context, libraries and fragmentation are parts of their own."""
    gpu = memory_of(answer(BILLION), {"sequence_len": 1}, Hardware("cuda", None, 1))
    assert gpu.parts["CUDA context"] == CUDA_CONTEXT
    assert gpu.total > 8 * BILLION + CUDA_CONTEXT
    cpu = memory_of(answer(BILLION), {"sequence_len": 1}, Hardware(memory=10**10))
    assert {"process", "allocator"} <= cpu.parts.keys()
    assert cpu.host == 0


def linear(document: Any) -> Memory:
    """A training that takes 4 GB and 2 for each row, half of it with checkpointing."""
    rows = int(document["micro_batch_size"])
    each = 1 if document.get("gradient_checkpointing") else 2
    base = {"lora": 3, "qlora": 1}.get(document.get("adapter"), 4)
    return Memory({"all": (base + each * rows) * BILLION}, parameters=BILLION)


@pytest.mark.parametrize(("limit", "expected"), [(5, 0), (6, 1), (13, 4), (14.5, 5), (104, 50)])
def test_the_largest_micro_batch(limit: float, expected: int) -> None:
    """It fits, and one more row would not."""
    document = {"micro_batch_size": 4, "sequence_len": 512}
    assert largest_micro_batch(document, linear, int(limit * BILLION)) == expected


def test_changes_keep_the_method_where_they_can() -> None:
    """First what leaves the method alone, then cheaper methods; each says how much it takes."""
    document = {"micro_batch_size": 4, "gradient_accumulation_steps": 2, "sequence_len": 512}
    found = list(changes_that_fit(document, linear, int(8.5 * BILLION), BILLION))
    assert found[0] == "gradient_checkpointing: true: 8.0 GB"
    assert found[1].startswith("adapter: lora, ")
    assert list(changes_that_fit(document, linear, int(0.5 * BILLION), BILLION)) == []
    judge = {"reward_model": True, "micro_batch_size": 1}  # without a sequence_len, too
    found = list(changes_that_fit(judge, linear, int(5.5 * BILLION), BILLION // 2))
    assert found == ["gradient_checkpointing: true: 5.0 GB"]
    assert "even in 4 bits its weights take 37.1 GB" in gist(70 * BILLION, 24 * BILLION)


def test_a_tiny_model_plainly_fits_and_an_unknown_one_is_not_guessed() -> None:
    """The bound is for plain decoders; mixtures of experts are left to the exact estimate."""
    tiny = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "vocab_size": 1000,
        "intermediate_size": 128,
        "num_attention_heads": 2,
    }
    document = {"micro_batch_size": 1, "sequence_len": 128}
    assert surely_within(tiny, document, 3 * BILLION)
    assert upper_bound({**tiny, "num_experts": 8}, document) is None
    assert upper_bound({"hidden_size": 1}, document) is None
    assert not surely_within(
        {**tiny, "hidden_size": 8192, "num_hidden_layers": 80}, document, 24 * BILLION
    )


def test_the_lower_bound_is_that_of_one_device() -> None:
    """All weights of 70 billion parameters take more than 400 GB, 4-bit ones more than 35."""
    model = {
        "model_type": "llama",
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "intermediate_size": 28672,
        "vocab_size": 128256,
    }
    assert lower_bound(model, {}) > 4e11
    assert 3.3e10 < lower_bound(model, {"adapter": "qlora", "load_in_4bit": True}) < 4e10
    assert lower_bound(model, {"deepspeed": "zero3.json"}) == 0
    assert lower_bound({}, {}) == 0


def test_the_lower_bound_counts_no_more_than_there_is() -> None:
    """Nothing is guessed of models with other layers or of rounded weights; less of optimizers
    without states and of frozen weights."""
    model = {
        "model_type": "llama",
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "intermediate_size": 28672,
        "vocab_size": 128256,
    }
    assert lower_bound({**model, "model_type": "starcoder2"}, {}) == 0  # two inner matrices
    assert lower_bound({**model, "quantization_config": {"bits": 4}}, {"adapter": "lora"}) == 0
    assert lower_bound({**model, "hidden_size": float("inf")}, {}) == 0
    assert lower_bound(model, {"optimizer": "sgd"}) < 0.7 * lower_bound(model, {})
    assert lower_bound(model, {"unfrozen_parameters": ["lm_head"]}) < 0.4 * lower_bound(model, {})
    assert lower_bound(model, {"adapter": "lora", "gptq": True}) < 4e10


def test_the_largest_micro_batch_of_several_answers() -> None:
    """GRPO cannot train on one row: multiples are tried; without an answer nothing is said."""

    def grpo(document: Any) -> Memory | None:
        return None if document["micro_batch_size"] % 4 else linear(document)

    document = {"micro_batch_size": 4, "sequence_len": 512}
    assert largest_micro_batch(document, grpo, 23 * BILLION) == 8
    assert largest_micro_batch(document, lambda _: None, 23 * BILLION) is None
