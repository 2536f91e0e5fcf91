"""From rows as people have them, through `format` and `train`'s layout, to the tokens that train.

``trained_tokens.txt`` shows every conversation as the installed Axolotl tokenizes it, what is
trained between ⟦ and ⟧. After a change that is meant: ``UPDATE_GOLDEN=1 pytest`` this file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmpipe.contracts import Artifact, StageContext
from llmpipe.formats import Labeled, read_example
from llmpipe.formats.records import read_rows
from llmpipe.stages.format import Format, FormatConfig
from llmpipe.stages.train_data import prepare

pytestmark = pytest.mark.heavy

GOLDEN = Path(__file__).with_name("trained_tokens.txt")

TEMPLATE = (
    "{{ 'TOOLS ' + tools | tojson + '\n' if tools }}{% for m in messages %}<|im_start|>{{ m.role }}"
    "{{ ' ' + m.name if m.name }}{{ ' ' + m.tool_call_id if m.tool_call_id }}\n"
    "{{ '<think>' + m.reasoning_content + '</think>' if m.reasoning_content }}{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}CALL {{ c.function | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
)


def call(number: int, **arguments: Any) -> dict[str, Any]:
    """A tool call, whose arguments are of another shape each time."""
    function = {"name": f"f{number}", "arguments": arguments}
    return {"id": f"c{number}", "type": "function", "function": function}


USER = {"role": "user", "content": "Is it warm in Oslo?"}
RESULT = {"role": "tool", "content": "21", "tool_call_id": "c1"}
SAYS = {"role": "assistant", "content": "Yes."}

CHATS: list[dict[str, Any]] = [
    {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call(1, place="Oslo", at=1.50)]},
            RESULT,
            SAYS,
        ],
        "tools": [{"name": "f1", "parameters": {"place": "string"}}],
    },
    {
        "messages": [
            {**USER, "content": "And on 2024-01-05?"},
            {"role": "assistant", "content": "", "tool_calls": [call(2, day="2024-01-05", x=None)]},
            {**SAYS, "content": "No."},
        ]
    },
    {
        "messages": [
            {**USER, "content": "One?", "name": "Ana"},
            {**SAYS, "content": "Wrong.", "weight": 0},
            {**USER, "content": "Two?"},
            {**SAYS, "content": "Right.", "weight": 1},
        ]
    },
    {"messages": [{**USER, "content": "Think!"}, {**SAYS, "reasoning_content": "So it is."}]},
    {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "In parts?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "In parts."}]},
        ]
    },
    {
        "conversations": [
            {"from": "human", "value": "Call it."},
            {"from": "function_call", "value": '{"name": "f", "arguments": {"y": [1, 2]}}'},
            {"from": "observation", "value": "3"},
            {"from": "gpt", "value": "Three."},
        ],
        "system": "Be brief.",
    },
    {"instruction": "Add.", "input": "1 and 2", "output": 3, "history": [["Hello.", "Hi."]]},
]
PAIRS: list[dict[str, Any]] = [
    {"prompt": "Even?", "chosen": "Yes.", "rejected": "No.", "system": "Be brief."},
    {"chosen": [USER, SAYS], "rejected": [USER, {**SAYS, "content": "Perhaps."}]},
]
LABELED: list[dict[str, Any]] = [
    {"prompt": "Even?", "completion": "Yes.", "label": True},
    {"prompt": [USER], "completion": [{**SAYS, "content": "Perhaps."}], "label": False},
]


def formatted(folder: Path, rows: list[dict[str, Any]], to: str) -> Artifact:
    """The training set that the format stage makes of rows."""
    source, out = folder / f"{to}-rows.jsonl", folder / f"{to}-out"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    out.mkdir()
    config = msgspec.convert({"kind": "format", "data": "d", "to": to}, FormatConfig)
    inputs = {"data": Artifact(source, "records", "", "rows.jsonl")}
    ctx = StageContext(config, "data", inputs, out, folder, folder, folder, folder, threads=1)
    result = Format.run(ctx)
    assert result.metrics["kept"] == {"train": len(rows)}
    assert "left_behind" not in result.metrics
    return Artifact(result.outputs["train"], "dataset", "", "./train.jsonl")


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    """SmolLM2's tokenizer with a template that writes all that a turn may have."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def shown(tokenizer: Any, ids: list[int], labels: list[int]) -> str:
    """A row's tokens as text, what is trained between brackets."""
    parts = []
    for trained, tokens in groupby(zip(ids, labels, strict=True), lambda pair: pair[1] != -100):
        text = tokenizer.decode([token for token, _ in tokens])
        parts.append(f"⟦{text}⟧" if trained else text)
    return "".join(parts)


def chats(
    folder: Path, tokenizer: Any, block: Mapping[str, Any], dataset: Mapping[str, Any]
) -> list[str]:
    """All conversations, tokenized by the strategy that Axolotl loads for them."""
    import datasets
    from axolotl.datasets import wrap_dataset_for_tokenized_prompt
    from axolotl.prompt_strategies import load
    from axolotl.utils.dict import DictDefault

    target = folder / "train.parquet"
    ready = prepare(formatted(folder, CHATS, "messages"), target, block, str(target), dataset)
    entry = ready.file.entry()
    config = DictDefault({"sequence_len": 512, "train_on_inputs": False, **block})
    strategy = load(entry["type"], tokenizer, config, DictDefault(entry))
    data = datasets.load_dataset("parquet", data_files=entry["path"], split="train")
    rows = list(wrap_dataset_for_tokenized_prompt(strategy, data))
    return [shown(tokenizer, row["input_ids"], row["labels"]) for row in rows]


def answers(folder: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Pairs and labeled answers: the prompt, and each answer as what is trained."""
    from axolotl.prompt_strategies.dpo import load as load_pairs
    from axolotl.prompt_strategies.kto import load as load_labeled
    from axolotl.utils.dict import DictDefault

    from llmpipe.backends.axolotl.training import write_plugins

    write_plugins(folder)
    monkeypatch.syspath_prepend(folder / "plugins")
    config = DictDefault({"rl": "dpo", "datasets": [{"type": "axolotl_pairs.render"}]})
    target = folder / "pairs.parquet"
    pairs = formatted(folder, PAIRS, "preference")
    entry = prepare(pairs, target, {"rl": "dpo"}, str(target)).file.entry()
    texts, _ = load_pairs(entry["type"], config, dataset_idx=0)
    found: dict[str, list[str]] = {"pairs (rl: dpo)": [], "labeled answers (rl: kto)": []}
    for line, row in read_rows(pairs.path, "pairs"):
        made = texts(read_example(row).example.layout(f"pairs:{line}"), tokenizer=tokenizer)
        for name in ("chosen", "rejected"):
            found["pairs (rl: dpo)"].append(f"{name}: {made['prompt']}⟦{made[name]}⟧")
    labeled = formatted(folder, LABELED, "labeled")
    texts, _ = load_labeled(Labeled.entry["type"], config, dataset_idx=0)
    for line, row in read_rows(labeled.path, "labeled"):
        made = texts(read_example(row).example.layout(f"labeled:{line}"), tokenizer=tokenizer)
        told = f"{made['label']}: {made['prompt']}⟦{made['completion']}⟧"
        found["labeled answers (rl: kto)"].append(told)
    return found


def test_what_is_trained(tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of different shapes, weights, reasoning, parts, ShareGPT, Alpaca, pairs and labels."""
    settings: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "conversations": ({}, {}),
        "roles_to_train: [user, tool], train_on_eos: none": (
            {},
            {"roles_to_train": ["user", "tool"], "train_on_eos": "none"},
        ),
        "train_on_inputs: true": ({"train_on_inputs": True}, {}),
    }
    sections: dict[str, list[str]] = {}
    for number, (name, (block, dataset)) in enumerate(settings.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        sections[name] = chats(folder, tokenizer, block, dataset)
    sections |= answers(tmp_path, tokenizer, monkeypatch)
    text = "".join(
        f"===== {name}\n\n" + "".join(f"{row.rstrip()}\n\n" for row in rows)
        for name, rows in sections.items()
    )
    if "UPDATE_GOLDEN" in os.environ:
        GOLDEN.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8")
