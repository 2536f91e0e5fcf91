"""Merged models predict what was trained, whatever the adapter changes and its base is rounded to.

The reference is the model in memory that the adapter was saved from, computed by PEFT and
bitsandbytes alone. `test_train_run.py` and `benchmarks/merge` hold real trainings against it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import Made, make_adapter
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from llmpipe.backends.huggingface.quantization import QUANTIZATION_CONFIG
from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.errors import MissingDependencyError, StageError
from llmpipe.parity.divergence import divergence
from llmpipe.parity.merged import (
    LIMITS,
    changed_tokens,
    comparison_rows,
    predictions,
    verify_same,
)
from llmpipe.stages import merge
from llmpipe.stages.merge import Merge, compare

pytestmark = pytest.mark.heavy

IDS = torch.tensor([[1, 4093, 198, 28, 3725, 260, 10, 11], [2, 77, 9000, 42, 43, 44, 45, 46]])
LINEAR = ["q_proj", "v_proj", "down_proj"]
BOTH = ["embed_tokens", "lm_head"]

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}},
    "olora": {"init_lora_weights": "olora"},
    "pissa": {"init_lora_weights": "pissa"},
    "head": {"target_modules": [*LINEAR, "lm_head"]},
    "embedding": {"target_modules": [*LINEAR, "embed_tokens"]},
    "head and embedding": {"target_modules": [*LINEAR, *BOTH]},
    "head and embedding, tied": {"target_modules": [*LINEAR, *BOTH], "ensure_weight_tying": True},
    "dora of head and embedding": {"target_modules": [*LINEAR, *BOTH], "use_dora": True},
    "both whole": {"modules_to_save": BOTH},
    "both whole, tied": {"modules_to_save": BOTH, "ensure_weight_tying": True},
    "embedding whole": {"modules_to_save": ["embed_tokens"]},
    "head whole": {"modules_to_save": ["lm_head"]},
    "norms whole": {"modules_to_save": ["input_layernorm"]},
    "head whole, embedding lora": {
        "target_modules": [*LINEAR, "embed_tokens"],
        "modules_to_save": ["lm_head"],
    },
    "tokens": {"trainable_token_indices": [42, 4093]},
    "tokens of the embedding": {"trainable_token_indices": {"embed_tokens": [42], "lm_head": [43]}},
    "new tokens": {"modules_to_save": BOTH, "rows": 49184},
    "layers twice": {"layer_replication": [[0, 2], [0, 2]]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """The tiny model with weights large enough for a difference to matter, embeddings tied."""
    folder = tmp_path_factory.mktemp("base") / "base"
    shutil.copytree(tiny_llama, folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for parameter in model.parameters():
        parameter.data *= 6 if parameter.dim() == 2 else 1
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """The same with a head of its own."""
    folder = tmp_path_factory.mktemp("untied") / "base"
    shutil.copytree(base, folder)
    model = AutoModelForCausalLM.from_pretrained(base, tie_word_embeddings=False)
    model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.flip(0).clone())
    model.save_pretrained(folder)
    return folder


def merged(
    tmp_path: Path, base: Path, adapter: Path, rows: Path | None = None
) -> tuple[StageResult, list[str]]:
    """Run the stage; return its result and the warnings."""
    events: list[Any] = []
    model = Artifact(base, "model", "1", "./base")
    inputs = {"adapter": Artifact(adapter, "adapter", "2", "sft", model)}
    if rows is not None:
        inputs["rows"] = Artifact(rows, "records", "3", "dataset.eval")
    ctx = StageContext(
        config=Merge.Config(kind="merge", adapter="sft", rows=rows and "dataset.eval"),
        stage="merge",
        inputs=inputs,
        out=tmp_path / "out",
        work=tmp_path,
        journal=tmp_path,
        tools=tmp_path,
        spec_dir=tmp_path,
        threads=2,
        emit=events.append,
    )
    ctx.out.mkdir(exist_ok=True)
    result = Merge.run(ctx)
    return result, [e["message"] for e in events if e["event"] == "warning"]


def distance(made: Made, model: Path) -> float:
    """KL of a folder's predictions from those of the trained model, nats a token."""
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        logits = loaded(IDS).logits
    return divergence(made.logits.flatten(0, 1).numpy(), logits.flatten(0, 1).numpy()).mean_kl


def is_tied(model: Path) -> bool:
    """Whether a folder holds one weight for embedding and head, and says so."""
    tied: bool = json.loads((model / "config.json").read_text())["tie_word_embeddings"]
    names = {name for file in model.glob("*.safetensors") for name in load_file(file)}
    assert tied is ("lm_head.weight" not in names)
    return tied


PARTED = {
    name for name in ADAPTERS if "head" in name or "embedding" in name or name == "both whole"
}
PARTED = (PARTED | {"new tokens"}) - {"head and embedding, tied"}


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_tied_model_merged_is_the_model_that_was_trained(
    tmp_path: Path, base: Path, name: str
) -> None:
    """Embedding and head are parted where the adapter parts them, and tied where they are equal."""
    lora = {"target_modules": LINEAR, **ADAPTERS[name]}
    made = make_adapter(base, tmp_path / "adapter", IDS, **lora)
    if "rows" not in lora:
        assert distance(made, base) > 1e-3  # the adapter matters
    result, _ = merged(tmp_path, base, made.folder)
    model = result.outputs["model"]
    assert distance(made, model) < 1e-6
    assert result.metrics["mean_kl"] < 1e-6
    assert is_tied(model) is (name not in PARTED)


@pytest.mark.parametrize(
    "name",
    ["lora", "head", "embedding", "head and embedding", "both whole", "tokens", "new tokens"],
)
def test_an_untied_model_stays_untied(tmp_path: Path, untied: Path, name: str) -> None:
    """Each side gets its own change."""
    lora = {"target_modules": LINEAR, **ADAPTERS[name]}
    made = make_adapter(untied, tmp_path / "adapter", IDS, **lora)
    result, _ = merged(tmp_path, untied, made.folder)
    assert distance(made, result.outputs["model"]) < 1e-6
    assert not is_tied(result.outputs["model"])


NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "bfloat16"}
ROUNDED: dict[str, dict[str, Any]] = {
    "nf4": NF4,
    "nf4 twice": {**NF4, "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True},
    "skipped": {**NF4, "llm_int8_skip_modules": ["down_proj", "lm_head"]},
    "int8": {"load_in_8bit": True},
}


def qlora(base: Path, folder: Path, rounded: dict[str, Any], **lora: Any) -> Made:
    """An adapter of a base that bitsandbytes rounded, with the record that training publishes."""
    loading = {"quantization_config": BitsAndBytesConfig(**rounded), "device_map": {"": "cpu"}}
    made = make_adapter(base, folder, IDS, loading=loading, **{"target_modules": LINEAR, **lora})
    (folder / QUANTIZATION_CONFIG).write_text(json.dumps(rounded))
    return made


@pytest.mark.parametrize("name", ROUNDED)
def test_an_adapter_is_merged_into_the_rounded_weights(
    tmp_path: Path, base: Path, name: str
) -> None:
    """What bitsandbytes computed in training is what ordinary weights compute after the merge.

    LLM.int8 also rounds activations, which a merged model does not.
    """
    made = qlora(base, tmp_path / "adapter", ROUNDED[name])
    result, warnings = merged(tmp_path, base, made.folder)
    model = result.outputs["model"]
    near = distance(made, model)
    assert near < (1e-3 if name == "int8" else 1e-6)
    assert warnings == []
    assert "quantization_config" not in json.loads((model / "config.json").read_text())
    assert load_file(model / "model.safetensors")["model.norm.weight"].dtype == torch.float32
    (made.folder / QUANTIZATION_CONFIG).unlink()
    plain, _ = merged(tmp_path, base, made.folder)
    assert distance(made, plain.outputs["model"]) > 5 * near


def test_a_rounded_base_with_an_adapter_of_the_head(tmp_path: Path, base: Path) -> None:
    """Both faults at once: the head stays as it was and is parted from the embedding."""
    made = qlora(base, tmp_path / "adapter", NF4, target_modules=[*LINEAR, "lm_head"])
    result, _ = merged(tmp_path, base, made.folder)
    assert distance(made, result.outputs["model"]) < 1e-6
    assert result.metrics["base"] == "nf4"


def test_a_base_that_is_itself_rounded(tmp_path: Path, base: Path) -> None:
    """A folder of 4-bit weights, as the hub has many: the product is an ordinary model."""
    config = BitsAndBytesConfig(**NF4)
    rounded = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=config, device_map={"": "cpu"}
    )
    folder = tmp_path / "base-4bit"
    rounded.save_pretrained(folder)
    made = make_adapter(folder, tmp_path / "adapter", IDS, target_modules=LINEAR)
    result, _ = merged(tmp_path, folder, made.folder)
    assert distance(made, result.outputs["model"]) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_base_in_shards(tmp_path: Path, base: Path, dtype: torch.dtype) -> None:
    """The product has the base's number format; only its rounding lies between."""
    folder = tmp_path / "base-16"
    shutil.copytree(base, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(base, dtype=dtype).save_pretrained(
        folder, max_shard_size="5MB"
    )
    assert len(list(folder.glob("*.safetensors"))) > 1
    made = make_adapter(folder, tmp_path / "adapter", IDS, target_modules=[*LINEAR, *BOTH])
    result, _ = merged(tmp_path, folder, made.folder)
    model = result.outputs["model"]
    weights = [w for file in model.glob("*.safetensors") for w in load_file(file).values()]
    assert {weight.dtype for weight in weights} == {dtype}
    assert distance(made, model) < 1e-3
    assert result.metrics["mean_kl"] == pytest.approx(distance(made, model), rel=3)


@pytest.mark.parametrize("name", ["head", "embedding", "head and embedding", "nf4", "bf16 head"])
def test_the_comparison_finds_a_plain_merge(tmp_path: Path, base: Path, name: str) -> None:
    """PEFT's own merge of what it merges wrongly exceeds the limit, in a 16-bit format as well."""
    lora = ADAPTERS.get(name.removeprefix("bf16 "), {})
    if name == "nf4":
        made = qlora(base, tmp_path / "adapter", NF4)
    else:
        made = make_adapter(base, tmp_path / "adapter", IDS, **{"target_modules": LINEAR, **lora})
    dtype = torch.bfloat16 if "bf16" in name else torch.float32
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=dtype), made.folder
    ).merge_and_unload()
    plain.save_pretrained(tmp_path / "plain")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    trained = made.logits.flatten(0, 1).numpy()
    with torch.no_grad():
        wrong = again(IDS).logits.flatten(0, 1).numpy()
    verify_same(trained, trained, "float32", "itself", learned=1)
    with pytest.raises(StageError, match="not the model that was trained"):
        verify_same(trained, wrong, str(dtype).removeprefix("torch."), "plain", learned=1)


def weaken(adapter: Path, factor: float) -> None:
    """Scale what an adapter changes."""
    file = adapter / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({name: w * factor if "lora_B" in name else w for name, w in weights.items()}, file)


def test_a_weak_adapter_that_was_lost_is_found(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the base itself passed for the merge of an adapter that changes little."""
    folder = tmp_path / "base-16"
    shutil.copytree(base, folder)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(folder)
    made = make_adapter(folder, tmp_path / "adapter", IDS, target_modules=LINEAR)
    weaken(made.folder, 0.1)
    result, _ = merged(tmp_path, folder, made.folder)
    learned, rounding = result.metrics["learned_kl"], result.metrics["mean_kl"]
    assert 2 * rounding < learned < LIMITS["bfloat16"]
    monkeypatch.setattr(merge, "verify_merge", lambda base, merged: {"changed": 1, "tensors": 1})
    monkeypatch.setattr(merge, "compare", lambda trained, _, label: compare(trained, folder, label))
    with pytest.raises(StageError, match="has lost what the adapter learned"):
        merged(tmp_path, folder, made.folder)


def test_an_adapter_that_rounds_away_is_told(tmp_path: Path, base: Path) -> None:
    """What changes less than bfloat16 can hold is not in the merged model, however it is added."""
    folder = tmp_path / "base-16"
    shutil.copytree(base, folder)
    AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(folder)
    made = make_adapter(folder, tmp_path / "adapter", IDS, target_modules=LINEAR)
    weaken(made.folder, 1e-3)
    with pytest.raises(StageError, match=r"smaller than .* number format \(bfloat16\)"):
        merged(tmp_path, folder, made.folder)


def test_tokens_that_an_adapter_changed_are_compared(base: Path, tmp_path: Path) -> None:
    """Two tokens that no text holds are found and read first; without any, some of all."""
    made = make_adapter(
        base, tmp_path / "a", IDS, target_modules=LINEAR, trainable_token_indices=[48000, 48001]
    )
    model = AutoModelForCausalLM.from_pretrained(base)
    tuned = PeftModel.from_pretrained(model, made.folder)
    assert set(changed_tokens(tuned)[:2]) == {48000, 48001}
    made = make_adapter(base, tmp_path / "b", IDS, target_modules=LINEAR)
    model = AutoModelForCausalLM.from_pretrained(base)
    spread = changed_tokens(PeftModel.from_pretrained(model, made.folder))
    assert len(spread) > 40
    assert comparison_rows(None, spread) == [spread]


def test_predictions_are_those_of_a_float32_copy(base: Path) -> None:
    """A 16-bit model computes block by block what its copy in float32 computes, and stays as it is."""
    rows = [[1, 2, 3, 4, 5], [7, 8]]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    wide = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).float()
    found = predictions(model, rows)
    assert model.model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    with torch.no_grad():
        alone = torch.cat([wide(torch.tensor([row])).logits[0] for row in rows]).numpy()
    assert divergence(alone, found).max_difference < 1e-4


def test_a_base_that_nothing_records_is_asked_about(tmp_path: Path, base: Path) -> None:
    """A card that speaks of 4 bits is not a record: merged as it stands, and said."""
    made = make_adapter(base, tmp_path / "adapter", IDS, target_modules=LINEAR)
    (made.folder / "README.md").write_text("```yaml\nadapter: qlora\nload_in_4bit: true\n```\n")
    _, (warning,) = merged(tmp_path, base, made.folder)
    assert "load_in_4bit: true" in warning
    assert QUANTIZATION_CONFIG in warning
    (made.folder / "README.md").unlink()
    assert merged(tmp_path, base, made.folder)[1] == []


def test_held_out_rows_are_compared_as_well(tmp_path: Path, base: Path) -> None:
    """A few of them, in any format; the figure is told apart. None at all is an error."""
    made = make_adapter(base, tmp_path / "adapter", IDS, target_modules=LINEAR)
    rows = tmp_path / "rows.jsonl"
    chats = [[turn("user", f"Box {n}?"), turn("assistant", f"Madrid {n}")] for n in range(9)]
    rows.write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    result, warnings = merged(tmp_path, base, made.folder, rows)
    assert warnings == []
    assert 0 <= result.metrics["held_out_kl"] < 1e-6
    plain = result.metrics["compared_tokens"] - result.metrics["held_out_tokens"]
    assert 6 * 10 < result.metrics["held_out_tokens"] < 6 * 96
    assert plain > 100
    assert result.summary is not None
    assert "tokens of dataset.eval" in result.summary
    rows.write_text("")
    with pytest.raises(StageError, match=r"dataset\.eval"):
        merged(tmp_path, base, made.folder, rows)
    config = Merge.Config(kind="merge", adapter="sft")
    assert "rows" not in Merge.fingerprint(config)


def turn(role: str, content: str) -> dict[str, str]:
    """A turn of a chat."""
    return {"role": role, "content": content}


def test_what_axolotl_leaves_beside_an_adapter_is_a_record(tmp_path: Path, base: Path) -> None:
    """Its output folder has a config.json that says how the base was rounded."""
    made = qlora(base, tmp_path / "adapter", NF4)
    (made.folder / QUANTIZATION_CONFIG).unlink()
    left = {"quantization_config": {**NF4, "quant_method": "bitsandbytes", "_load_in_4bit": True}}
    (made.folder / "config.json").write_text(json.dumps(left))
    result, warnings = merged(tmp_path, base, made.folder)
    assert (result.metrics["base"], warnings) == ("nf4", [])
    assert distance(made, result.outputs["model"]) < 1e-6


@pytest.mark.parametrize(
    ("record", "message"),
    [("{", "cannot be read"), ("[]", "not a JSON object"), ("{}", "neither load_in_4bit nor")],
)
def test_a_broken_record_is_refused(tmp_path: Path, base: Path, record: str, message: str) -> None:
    """Rather than merged as if there were none."""
    made = make_adapter(base, tmp_path / "adapter", IDS, target_modules=LINEAR)
    (made.folder / QUANTIZATION_CONFIG).write_text(record)
    with pytest.raises(StageError, match=message):
        merged(tmp_path, base, made.folder)


def test_bitsandbytes_is_asked_for(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is missing, merging and loading say what to install."""
    from llmpipe.backends.huggingface.inference import load_model

    made = qlora(base, tmp_path / "adapter", NF4)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="bitsandbytes"):
        merged(tmp_path, base, made.folder)
    with pytest.raises(MissingDependencyError, match="bitsandbytes"):
        load_model(base, made.folder)


@pytest.mark.parametrize("rounded", [None, NF4])
def test_an_evaluated_adapter_is_the_model_that_was_trained(
    tmp_path: Path, base: Path, rounded: dict[str, Any] | None
) -> None:
    """`load_model` rounds the base as training had it, and takes new tokens from the adapter."""
    from llmpipe.backends.huggingface.inference import load_model

    lora = {"modules_to_save": BOTH, "rows": 49184, "target_modules": LINEAR}
    if rounded:
        made = qlora(base, tmp_path / "adapter", rounded, **lora)
    else:
        made = make_adapter(base, tmp_path / "adapter", IDS, **lora)
    loaded = load_model(base, made.folder)
    with torch.no_grad():
        logits = loaded.model(IDS).logits.flatten(0, 1).numpy()
    assert divergence(made.logits.flatten(0, 1).numpy(), logits).mean_kl < 1e-6


def test_an_adapter_whose_base_cannot_be_made_again_is_refused(tmp_path: Path, base: Path) -> None:
    """PEFT would subtract another random part from the base: 0.14 nats a token from the trained."""
    start = {"init_lora_weights": "pissa_niter_4", "target_modules": LINEAR}
    made = make_adapter(base, tmp_path / "adapter", IDS, **start)
    with pytest.raises(StageError, match="pissa_niter_4, a random change of its base") as caught:
        merged(tmp_path, base, made.folder)
    assert "pissa" in (caught.value.hint or "")


def test_an_adapter_of_lora_ga_is_refused(tmp_path: Path, base: Path) -> None:
    """PEFT applies it to the base as it was before LoRA-GA changed it, without a word."""
    made = make_adapter(base, tmp_path / "adapter", IDS, target_modules=LINEAR)
    settings = made.folder / "adapter_config.json"
    changed = {**json.loads(settings.read_text("utf-8")), "init_lora_weights": "lora_ga"}
    settings.write_text(json.dumps(changed), "utf-8")
    with pytest.raises(StageError, match="lora_ga, a change of its base by gradients"):
        merged(tmp_path, base, made.folder)


def test_a_layer_that_peft_leaves_unmerged_is_named(tmp_path: Path, base: Path) -> None:
    """Trained tokens of a tied embedding, of which the head has LoRA as well."""
    both = {"target_modules": [*LINEAR, "lm_head"], "trainable_token_indices": [42]}
    made = make_adapter(base, tmp_path / "adapter", IDS, **both)
    with pytest.raises(StageError, match="PEFT leaves lm_head unmerged") as caught:
        merged(tmp_path, base, made.folder)
    assert "lora_modules_to_save" in (caught.value.hint or "")


def test_tokens_without_rows_are_refused(tmp_path: Path, base: Path) -> None:
    """A tokenizer with more tokens than base and adapter have rows for: nothing is drawn for them."""
    from transformers import AutoTokenizer

    made = make_adapter(base, tmp_path / "adapter", IDS, target_modules=LINEAR)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<new{number}>" for number in range(64)])
    tokenizer.save_pretrained(made.folder)
    with pytest.raises(StageError, match="adds 64 tokens and has no rows for them"):
        merged(tmp_path, base, made.folder)


def test_a_module_that_the_adapter_lacks_is_refused(tmp_path: Path, base: Path) -> None:
    """PEFT would keep the base's head without a word."""
    from safetensors.torch import save_file

    made = make_adapter(
        base, tmp_path / "adapter", IDS, target_modules=LINEAR, modules_to_save=["lm_head"]
    )
    file = made.folder / "adapter_model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "lm_head" not in k}, file)
    with pytest.raises(StageError, match="no weights of lm_head"):
        merged(tmp_path, base, made.folder)
