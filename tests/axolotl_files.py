"""Axolotl files of the shapes that people have, and rows for them; all of our own making."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from init_command import write_rows

TAIL = """\
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 2
learning_rate: 2e-5
optimizer: adamw_torch_fused
lr_scheduler: cosine
output_dir: ./outputs/out
bf16: auto
attn_implementation: flash_attention_2
gradient_checkpointing: true
"""

LORA = "adapter: lora\nlora_r: 8\nlora_alpha: 16\nlora_dropout: 0.05\nlora_target_linear: true\n"
QLORA = LORA.replace("lora\n", "qlora\nload_in_4bit: true\n", 1)

LOCAL: dict[str, str] = {
    "chat": "datasets: [{path: chat.jsonl, type: chat_template}]\n" + LORA + "sequence_len: 512\n",
    "chat, all weights, little said": "datasets: [{path: chat.jsonl, type: chat_template}]\n",
    "chat, settings of rows": """\
datasets:
  - path: chat.jsonl
    type: chat_template
    field_messages: messages
    roles_to_train: [assistant]
    train_on_eos: turn
    message_property_mappings: {role: role, content: content}
val_set_size: 0.1
dataset_prepared_path: last_run_prepared
evals_per_epoch: 2
saves_per_epoch: 1
warmup_ratio: 0.1
weight_decay: 0.0
special_tokens: {pad_token: "<|endoftext|>"}
""",
    "chat template of the entry": """\
datasets: [{path: chat.jsonl, type: chat_template, chat_template: chatml}]
""",
    "sharegpt": """\
datasets:
  - path: sharegpt.jsonl
    type: chat_template
    field_messages: conversations
    message_property_mappings: {role: from, content: value}
    roles: {assistant: [gpt], user: [human]}
chat_template: chatml
sample_packing: true
pad_to_sequence_len: true
""",
    "turns with other keys": """\
datasets:
  - path: dialog.jsonl
    type: chat_template
    field_messages: dialog
    message_field_role: speaker
    message_field_content: words
""",
    "alpaca": "datasets: [{path: alpaca.jsonl, type: alpaca}]\nval_set_size: 0.2\n" + LORA,
    "completion": "datasets: [{path: texts.jsonl, type: completion, field: body}]\n",
    "input_output": """\
datasets: [{path: segments.jsonl, type: input_output}]
train_on_inputs: false
sequence_len: 1024
""",
    "a prompt of one's own": """\
datasets:
  - path: alpaca.jsonl
    type:
      system_prompt: "You are terse."
      field_instruction: instruction
      field_output: output
      format: "[INST] {instruction} [/INST]"
      no_input_format: "[INST] {instruction} [/INST]"
val_set_size: 4
""",
    "two data sets, one of them in shards": """\
datasets:
  - {path: chat.jsonl, type: chat_template, split: train}
  - {path: json, data_files: [more/chat.jsonl], ds_type: json, type: chat_template, shards: 2}
dataset_exact_deduplication: true
shuffle_merged_datasets: true
"""
    + QLORA
    + "optimizer: paged_adamw_8bit\nseed: 7\nval_set_size: 0.1\n",
    "test data sets": """\
datasets: [{path: alpaca.jsonl, ds_type: json, type: alpaca}]
test_datasets: [{path: more/alpaca.jsonl, ds_type: json, split: train, type: alpaca}]
eval_steps: 10
save_steps: 10
load_best_model_at_end: true
early_stopping_patience: 3
""",
    "dpo": """\
rl: dpo
rl_beta: 0.2
datasets: [{path: pairs.jsonl, split: train, type: chatml.intel}]
"""
    + LORA,
    "dpo by the chat template": """\
rl: dpo
chat_template: chatml
datasets:
  - path: pairs.jsonl
    split: train
    type: chat_template.default
    field_messages: conversation
    field_chosen: chosen
    field_rejected: rejected
    message_property_mappings: {role: role, content: content}
    roles: {system: [system], user: [user], assistant: [assistant]}
""",
    "orpo": """\
rl: orpo
orpo_alpha: 0.1
remove_unused_columns: false
chat_template: chatml
datasets: [{path: pairs.jsonl, type: chat_template.argilla}]
""",
    "kto": """\
rl: kto
rl_beta: 0.5
kto_desirable_weight: 0.2
remove_unused_columns: false
datasets: [{path: labeled.jsonl, type: llama3.ultra, split: train}]
""",
    "reward": """\
reward_model: true
chat_template: chatml
model_type: AutoModelForSequenceClassification
num_labels: 1
remove_unused_columns: false
datasets: [{path: pairs.jsonl, type: bradley_terry.chat_template}]
""",
    "deepspeed": "datasets: [{path: chat.jsonl, type: chat_template}]\ndeepspeed: cfg/zero2.json\n",
    "deepspeed that lies in Axolotl's repository": """\
datasets: [{path: chat.jsonl, type: chat_template}]
deepspeed: deepspeed_configs/zero3_bf16_cpuoffload_all.json
""",
    "fsdp 1": """\
datasets: [{path: chat.jsonl, type: chat_template}]
fsdp_version: 1
fsdp: [full_shard, auto_wrap]
fsdp_config:
  fsdp_limit_all_gathers: true
  fsdp_sync_module_states: true
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer
  fsdp_state_dict_type: FULL_STATE_DICT
""",
    "fsdp 2": """\
datasets: [{path: chat.jsonl, type: chat_template}]
fsdp_version: 2
fsdp_config:
  offload_params: false
  auto_wrap_policy: TRANSFORMER_BASED_WRAP
  transformer_layer_cls_to_wrap: LlamaDecoderLayer
  state_dict_type: FULL_STATE_DICT
  reshard_after_forward: true
""",
    "plugins": """\
datasets: [{path: chat.jsonl, type: chat_template}]
plugins:
  - axolotl.integrations.liger.LigerPlugin
  - axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin
liger_rope: true
liger_rms_norm: true
liger_glu_activation: true
""",
    "reports": """\
datasets: [{path: chat.jsonl, type: chat_template}]
wandb_project: mine
wandb_entity: team
wandb_name: first
wandb_log_model: "false"
hub_model_id: me/model
hub_strategy: end
"""
    + LORA,
    "a template of one's own": """\
datasets: [{path: chat.jsonl, type: chat_template}]
chat_template_jinja: template.jinja
eot_tokens: ["<|im_end|>"]
default_system_message: "Say ${nothing}."
""",
}
"""Files whose rows are beside them, without the base model and `TAIL`."""

HUB: dict[str, str] = {
    "one data set": "datasets: [{path: org/rows, type: alpaca}]\n",
    "splits and subsets": """\
datasets:
  - {path: org/rows, type: chat_template, split: "train[:200]", revision: v1.2}
  - {path: org/more, type: chat_template, name: en, split: train}
  - {path: org/more, type: chat_template, name: de, split: train}
test_datasets: [{path: org/rows, type: chat_template, split: test, revision: v1.2}]
eval_strategy: epoch
"""
    + QLORA,
    "dpo with a split": """\
rl: ipo
datasets: [{path: org/pairs, split: train_prefs, type: chat_template.default}]
val_set_size: 0.05
"""
    + LORA,
}
"""Files whose rows are on the hub."""


def write_all(folder: Path, base: Path) -> None:
    """Write the rows and files that the Axolotl files name."""
    chats = [turns(f"What is {i}?", f"The number {i}.") for i in range(40)]
    alpaca = [
        {"instruction": f"Translate {i}.", "input": f"word {i}", "output": f"Wort {i}"}
        for i in range(40)
    ]
    for below in (folder, folder / "more"):
        below.mkdir(exist_ok=True)
        write_rows(below / "chat.jsonl", [{"messages": chat} for chat in chats])
        write_rows(below / "alpaca.jsonl", alpaca)
    told = [[{"from": w, "value": t["content"]} for w, t in named(chat)] for chat in chats]
    write_rows(folder / "sharegpt.jsonl", [{"conversations": chat} for chat in told])
    spoken = [[{"speaker": t["role"], "words": t["content"]} for t in chat] for chat in chats]
    write_rows(folder / "dialog.jsonl", [{"dialog": chat} for chat in spoken])
    write_rows(folder / "texts.jsonl", [{"body": f"A text on {i}."} for i in range(9)])
    parts = [{"label": False, "text": "<s>Q"}, {"label": True, "text": "A</s>"}]
    write_rows(folder / "segments.jsonl", [{"segments": parts}])
    write_rows(folder / "pairs.jsonl", [pair(i) for i in range(9)])
    labeled = [{"prompt": f"p{i}", "completion": "c", "label": i % 2 == 0} for i in range(8)]
    write_rows(folder / "labeled.jsonl", labeled)
    (folder / "cfg").mkdir()
    (folder / "cfg" / "zero2.json").write_text(json.dumps({"zero_optimization": {"stage": 2}}))
    (folder / "template.jinja").write_text("{{ messages[0].content }}")
    (folder / "base").symlink_to(base)


def turns(question: str, answer: str) -> list[dict[str, str]]:
    """Return a chat of one question."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def named(chat: list[dict[str, str]]) -> list[tuple[str, dict[str, str]]]:
    """Return the turns of a chat, each with ShareGPT's name for its speaker."""
    return list(zip(("human", "gpt"), chat, strict=True))


def pair(i: int) -> dict[str, Any]:
    """Return a row of two answers, with what several types read."""
    chosen, rejected = turns(f"q{i}", "good"), turns(f"q{i}", "bad")
    return {
        "system": "",
        "question": f"q{i}",
        "prompt": f"q{i}",
        "input": f"q{i}",
        "conversation": chosen[:1],
        "chosen": chosen,
        "rejected": rejected,
    }
