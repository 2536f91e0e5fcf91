"""Adapters as GGUF: equal to PEFT's where llama.cpp has a place for them, refused elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import give_tokenizer, make_adapter
from conftest import write_llama
from safetensors.torch import load_file, save_file

from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.errors import StageError
from llmpipe.stages.export_adapter import ExportAdapter, ExportAdapterConfig

pytestmark = pytest.mark.heavy

IDS = torch.tensor([[1, 9690, 198, 2683, 359, 253]])
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
Run = Callable[[Path, Path], StageResult]


@pytest.fixture
def export(tmp_path: Path, tools_dir: Path) -> Run:
    """Run the stage on a base and an adapter."""
    count = iter(range(100))

    def run(base: Path, adapter: Path) -> StageResult:
        root = tmp_path / f"run{next(count)}"
        out, work = root / "out", root / "work"
        for folder in (out, work):
            folder.mkdir(parents=True)
        model = Artifact(base, "model", "1", "./base")
        inputs = {"adapter": Artifact(adapter, "adapter", "2", "sft", base=model)}
        config = ExportAdapterConfig(kind="export_adapter", adapter="sft")
        ctx = StageContext(config, "lora", inputs, out, work, root, tools_dir, root, threads=2)
        return ExportAdapter.run(ctx)

    return run


def sharp(folder: Path, smollm2_gguf: Path, **settings: Any) -> Path:
    """A random Llama whose predictions are far from uniform, so that differences show."""
    write_llama(folder, smollm2_gguf, initializer_range=0.2, tie_word_embeddings=False, **settings)
    return folder


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": [*ATTENTION, "gate_proj", "up_proj", "down_proj"]},
        {
            "target_modules": [*ATTENTION, "lm_head"],
            "use_rslora": True,
            "rank_pattern": {"v_proj": 2},
            "alpha_pattern": {"k_proj": 24},
        },
    ],
)
def test_llama_cpp_predicts_what_peft_does(
    export: Run, tmp_path: Path, smollm2_gguf: Path, lora: dict[str, Any]
) -> None:
    """With grouped heads, whose rows the converter reorders; with other ranks and scales."""
    base = sharp(tmp_path / "base", smollm2_gguf)
    made = make_adapter(base, tmp_path / "adapter", IDS, **lora)
    result = export(base, made.folder)
    metrics = result.metrics
    assert metrics["mean_kl"] < 1e-4 < 0.01 < metrics["learned_kl"]
    assert metrics["tensors"] == 2 * len(lora["target_modules"]) - ("lm_head" in str(lora))
    assert json.loads(result.outputs["parity"].read_text()) == metrics
    assert not list(result.outputs["adapter"].parent.parent.glob("work/*.gguf"))


def test_an_adapter_that_is_written_wrongly_is_detected(
    export: Run, tmp_path: Path, smollm2_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison fails where the scales are not those of training."""
    from llmpipe.stages import export_adapter

    base = sharp(tmp_path / "base", smollm2_gguf)
    made = make_adapter(base, tmp_path / "adapter", IDS, target_modules=ATTENTION)
    right = export_adapter.scales_of
    monkeypatch.setattr(
        export_adapter, "scales_of", lambda tuned: {k: v / 2 for k, v in right(tuned).items()}
    )
    with pytest.raises(StageError, match="as GGUF is not the adapter that was trained"):
        export(base, made.folder)


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"use_dora": True}, "use_dora: llama.cpp's adapters have no magnitudes"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save: llama.cpp's adapters replace no"),
        ({"trainable_token_indices": [5]}, "trainable_token_indices: .* no rows"),
        ({"bias": "all"}, "bias: llama.cpp's adapters change no bias"),
        ({"lora_bias": True}, "lora_bias: "),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is pissa: PEFT changes the base"),
        (
            {"target_modules": ["q_proj", "embed_tokens"]},
            "model.embed_tokens.lora_embedding_A, which is not a factor of a linear layer",
        ),
    ],
)
def test_what_llama_cpp_cannot_apply_is_refused(
    export: Run, tmp_path: Path, tiny_llama: Path, lora: dict[str, Any], message: str
) -> None:
    """By name and with the way out, before anything is converted."""
    folder = make_adapter(tiny_llama, tmp_path / "a", IDS, **{"target_modules": ["q_proj"], **lora})
    with pytest.raises(StageError, match=message) as caught:
        export(tiny_llama, folder.folder)
    assert caught.value.message.startswith("sft cannot be a GGUF adapter: ")
    assert "export the merged model" in (caught.value.hint or "")


def test_a_head_that_is_tied_is_refused(export: Run, tmp_path: Path, tiny_llama: Path) -> None:
    """The GGUF of such a base has no tensor for it."""
    folder = make_adapter(tiny_llama, tmp_path / "a", IDS, target_modules=["q_proj", "lm_head"])
    with pytest.raises(StageError, match=r"sft.*(output\.weight|lm_head).*"):
        export(tiny_llama, folder.folder)


def test_an_adapter_of_a_rounded_base_is_refused(
    export: Run, tmp_path: Path, tiny_llama: Path
) -> None:
    """On a GGUF of the base it would be another model."""
    made = make_adapter(tiny_llama, tmp_path / "a", IDS, target_modules=["q_proj"])
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    (made.folder / "quantization_config.json").write_text(json.dumps(settings))
    with pytest.raises(StageError, match="trained on a base that bitsandbytes rounded") as caught:
        export(tiny_llama, made.folder)
    assert "the merge rounds the base first" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chat_template": "{% for m in messages %}[{{ m.content }}]{% endfor %}"}, "is not its"),
        ({"eos_token": "<|endoftext|>"}, r"answers end with '<\|endoftext\|>', those of its base"),
    ],
)
def test_an_adapter_with_another_template_or_end_is_refused(
    export: Run, tmp_path: Path, tiny_llama: Path, changes: dict[str, str], message: str
) -> None:
    """llama.cpp would ask it with the base's: the figures of the export do not show that."""
    made = make_adapter(tiny_llama, tmp_path / "a", IDS, target_modules=["q_proj"])
    give_tokenizer(made.folder, tiny_llama, **changes)
    with pytest.raises(StageError, match=message) as caught:
        export(tiny_llama, made.folder)
    assert "export the merged model" in (caught.value.hint or "")


def test_a_template_that_renders_alike_is_accepted(
    export: Run, tmp_path: Path, smollm2_gguf: Path
) -> None:
    """However it is written."""
    base = sharp(tmp_path / "base", smollm2_gguf)
    made = make_adapter(base, tmp_path / "a", IDS, target_modules=["q_proj", "v_proj"])
    template = (base / "chat_template.jinja").read_text("utf-8")
    give_tokenizer(made.folder, base, chat_template=f"{{# as in training #}}{template}")
    assert export(base, made.folder).outputs["adapter"].is_file()


def test_an_adapter_that_learned_nothing_is_refused(
    export: Run, tmp_path: Path, tiny_llama: Path
) -> None:
    """As a merge refuses it."""
    made = make_adapter(tiny_llama, tmp_path / "a", IDS, target_modules=["q_proj"])
    file = made.folder / "adapter_model.safetensors"
    stored = load_file(file)
    save_file({k: v * ("lora_A" in k) for k, v in stored.items()}, file)
    with pytest.raises(StageError, match="learned nothing"):
        export(tiny_llama, made.folder)
