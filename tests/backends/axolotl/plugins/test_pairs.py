"""Pairs of answers as token ids, the way TRL's trainers see them, under several chat templates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = pytest.mark.heavy

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}<|im_end|>\n\n{{ m.content }}"
    "<|eot|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_end|>\n\n{% endif %}"
)
TRIMS = CHATML.replace("m.content", "m.content | trim")
PLAIN = (
    "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)
CALLS = CHATML.replace(
    "{{ m.content }}",
    "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.arguments.x }}{% endfor %}"
    "{{ tools[0].name if tools }}",
)
THINKS = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")

ANSWERS = ["A", "assistant", " x ", "x \n", "", "\n\nx", "2024-01-05", "<|im_end|>", "é\n"]


@pytest.fixture(scope="module")
def tokenizers(tiny_llama: Path) -> dict[str, Any]:
    """SmolLM2's tokenizer: as it is, and as Llama 3's is: its begin token put before any text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(tiny_llama)
    begins = AutoTokenizer.from_pretrained(tiny_llama)
    begins.add_special_tokens(
        {"bos_token": "<|begin|>", "eos_token": "<|eot|>", "pad_token": "<|endoftext|>"}
    )
    begins.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", begins.bos_token_id)]
    )
    assert begins("x")["input_ids"][0] == begins.bos_token_id
    return {"plain": plain, "begins": begins}


CASES = {
    "chatml": ("plain", CHATML),
    "llama3": ("begins", LLAMA3),
    "trims": ("plain", TRIMS),
    "no end token": ("plain", PLAIN),
    "chatml behind a begin token": ("begins", CHATML),
}


@pytest.fixture(params=CASES)
def tokenizer(tokenizers: dict[str, Any], request: pytest.FixtureRequest) -> Any:
    """A tokenizer with one of the templates."""
    name, template = CASES[request.param]
    tokenizer = tokenizers[name]
    tokenizer.chat_template = template
    return tokenizer


def configuration(rl: str = "dpo", **more: Any) -> Any:
    """Axolotl's configuration as its loader hands it to a prompt strategy."""
    from axolotl.utils.dict import DictDefault

    return DictDefault({"rl": rl, "datasets": [{"type": "axolotl_pairs.render"}], **more})


def sample(prompt: Any, chosen: Any, rejected: Any, tools: Any = None) -> dict[str, Any]:
    """A row as `llmpipe.stages.train_data` writes it."""
    turns = [
        prompt,
        *({"role": "assistant", "content": answer} for answer in (chosen, rejected)),
    ]
    names = ("prompt", "chosen", "rejected")
    texts = {name: json.dumps(turn) for name, turn in zip(names, turns, strict=True)}
    return {**texts, "tools": tools and json.dumps(tools), "row": "./rows.jsonl:3"}


def rendered(row: Mapping[str, Any], tokenizer: Any, **more: Any) -> dict[str, str]:
    """The three texts, by the strategy under the name that Axolotl loads it by."""
    from axolotl.prompt_strategies.dpo import load

    texts, _ = load("llmpipe_pairs_for_tests.render", configuration(**more), dataset_idx=0)
    return texts(row, tokenizer=tokenizer)


@pytest.fixture(autouse=True)
def beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the plugins where a training finds them, under another name than llmpipe's own."""
    import sys

    from llmpipe.backends.axolotl.training import write_plugins

    write_plugins(tmp_path)
    (tmp_path / "plugins" / "axolotl_pairs").rename(
        tmp_path / "plugins" / "llmpipe_pairs_for_tests"
    )
    monkeypatch.syspath_prepend(tmp_path / "plugins")
    for name in [n for n in sys.modules if n.startswith("llmpipe_pairs_for_tests")]:
        monkeypatch.delitem(sys.modules, name)


def dpo_ids(row: dict[str, Any], tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """What TRL's DPO trainer makes of the texts: prompt, chosen and rejected ids."""
    from axolotl.core.trainers.dpo import AxolotlDPOTrainer
    from datasets import Dataset

    trainer = SimpleNamespace(_tokenizer=tokenizer)
    arguments = SimpleNamespace(dataset_num_proc=None, max_length=512, truncation_mode="keep_start")
    data = Dataset.from_list([rendered(row, tokenizer)])
    (done,) = AxolotlDPOTrainer._prepare_dataset(trainer, data, tokenizer, arguments, "train")
    return done["prompt_ids"], done["chosen_ids"], done["rejected_ids"]


def kto_ids(row: dict[str, Any], tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """What TRL's KTO trainer makes of the two answers as labeled ones: two rows of one prompt."""
    from axolotl.core.trainers import AxolotlKTOTrainer
    from axolotl.prompt_strategies.kto import load
    from datasets import Dataset

    texts, _ = load("llmpipe_pairs_for_tests.labeled", configuration(rl="kto"), dataset_idx=0)
    rows = [
        texts({**row, "completion": row[name], "label": label}, tokenizer=tokenizer)
        for name, label in (("chosen", "true"), ("rejected", "false"))
    ]
    trainer = SimpleNamespace(_tokenizer=tokenizer, calculate_KL=False)
    trainer.desirable_weight = trainer.undesirable_weight = 1.0
    arguments = SimpleNamespace(dataset_num_proc=None, max_length=512)
    data = Dataset.from_list([{k: r[k] for k in ("prompt", "completion", "label")} for r in rows])
    good, bad = AxolotlKTOTrainer._prepare_dataset(trainer, data, tokenizer, arguments, "train")
    assert (good["label"], bad["label"]) == (True, False)
    # Each row is cut for itself: a token may cover the end of the prompt and the answer's beginning.
    pairs = zip(good["prompt_ids"], bad["prompt_ids"], strict=False)
    head = [a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    chosen, rejected = ([*r["prompt_ids"][len(head) :], *r["completion_ids"]] for r in (good, bad))
    return head, chosen, rejected


def cpo_ids(row: dict[str, Any], tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """What TRL's CPO trainer (``rl: simpo``) makes of the texts."""
    from axolotl.core.trainers import AxolotlCPOTrainer

    return _sequences(AxolotlCPOTrainer, rendered(row, tokenizer, rl="simpo"), tokenizer)


def orpo_ids(row: dict[str, Any], tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    """What TRL's ORPO trainer makes of the texts."""
    from axolotl.core.trainers import AxolotlORPOTrainer

    return _sequences(AxolotlORPOTrainer, rendered(row, tokenizer, rl="orpo"), tokenizer)


def _sequences(
    kind: Any, texts: dict[str, str], tokenizer: Any
) -> tuple[list[int], list[int], list[int]]:
    trainer = SimpleNamespace(is_encoder_decoder=False, processing_class=tokenizer, max_length=512)
    trainer.build_tokenized_answer = partial(kind.build_tokenized_answer, trainer)
    done = kind.tokenize_row(trainer, texts)
    answers = []
    for name in ("chosen", "rejected"):
        ids, labels = done[f"{name}_input_ids"], done[f"{name}_labels"]
        start = labels.index(next(label for label in labels if label != -100))
        assert labels[start:] == ids[start:]
        answers.append((ids[:start], ids[start:]))
    (head, chosen), (other_head, rejected) = answers
    assert head == other_head == done["prompt_input_ids"]
    return head, chosen, rejected


def wanted(turns: list[dict[str, Any]], tokenizer: Any, *, begins: bool) -> list[int]:
    """The conversation's own ids, to the end of its last end-of-turn token.

    ``begins`` says that the trainer puts the begin token first where the template does not.
    """
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    bare = text.rstrip()
    text = bare if bare.endswith(("<|im_end|>", "<|eot|>")) else text
    text += "" if text.endswith(tokenizer.eos_token) else tokenizer.eos_token
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    first = tokenizer.bos_token_id
    return [first, *ids] if begins and ids[0] != first else ids


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("trainer", [dpo_ids, cpo_ids, orpo_ids, kto_ids])
def test_the_trainer_sees_the_conversation(tokenizer: Any, trainer: Any, answer: str) -> None:
    """Prompt and answer are the ids of the rendered whole, whatever the answer's text is."""
    prompt = [
        {"role": "system", "content": "You are a helpful AI assistant. A"},
        {"role": "user", "content": "A or x?"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "Really?"},
    ]
    head, chosen, rejected = trainer(sample(prompt, answer, "no"), tokenizer)
    begins = (
        trainer in (cpo_ids, orpo_ids) or tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    )
    for ids, text in ((chosen, answer), (rejected, "no")):
        turns = [*prompt, {"role": "assistant", "content": text}]
        assert head + ids == wanted(turns, tokenizer, begins=begins)
    asked = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    _, found, told = asked.rpartition(tokenizer.decode(head[1:]))
    assert found
    assert not told.strip("\n")  # a line break that shares a token with the answer's beginning
    assert chosen[-1] == rejected[-1] == tokenizer.eos_token_id


def test_tools_and_calls_are_rendered(tokenizers: dict[str, Any]) -> None:
    """Arguments written as text are read; a null in a turn is as good as nothing."""
    tokenizer = tokenizers["plain"]
    tokenizer.chat_template = CALLS
    call = {"function": {"name": "f", "arguments": '{"x": "seven"}'}}
    prompt = [
        {"role": "user", "content": "q", "name": None},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "7"},
    ]
    texts = rendered(sample(prompt, "a", "b", [{"name": "T"}]), tokenizer)
    assert "assistant\nsevenT<|im_end|>" in texts["prompt"]
    assert texts["chosen"] == "aT<|im_end|>"


def test_a_template_that_renders_another_prompt_is_refused(tokenizers: dict[str, Any]) -> None:
    """By the row, with the place where the two differ."""
    tokenizer = tokenizers["plain"]
    tokenizer.chat_template = THINKS
    with pytest.raises(ValueError, match=r"\./rows\.jsonl:3: with the chosen answer .*<think>"):
        rendered(sample([{"role": "user", "content": "q"}], "a", "b"), tokenizer)


def test_a_row_that_a_template_refuses_is_named(tokenizers: dict[str, Any]) -> None:
    """By its place, with what the template says."""
    tokenizer = tokenizers["plain"]
    tokenizer.chat_template = (
        "{{ raise_exception('no system role') if messages[0].role == 'system' }}" + CHATML
    )
    turns = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    with pytest.raises(ValueError, match=r"^\./rows\.jsonl:3: .* this row: no system role$"):
        rendered(sample(turns, "a", "b"), tokenizer)
    assert rendered(sample(turns[1:], "a", "b"), tokenizer)["chosen"] == "a<|im_end|>"


def test_the_block_says_which_template(tokenizers: dict[str, Any]) -> None:
    """The configuration's own template and its options go before the tokenizer's."""
    tokenizer = tokenizers["plain"]
    tokenizer.chat_template = CHATML
    row = sample([{"role": "user", "content": "q"}], "a", "b")
    jinja = PLAIN.replace("###", "{{ mark }}")
    texts = rendered(
        row,
        tokenizer,
        chat_template="jinja",
        chat_template_jinja=jinja,
        chat_template_kwargs={"mark": "@"},
    )
    assert texts["prompt"] == "@ user:\nq\n\n@ assistant:\n"
    assert texts["chosen"] == "a\n\n" + tokenizer.eos_token


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_reward_model_sees_whole_conversations(tokenizer: Any, answer: str) -> None:
    """Each answer behind the whole prompt, as the template renders it; over-long ones are said."""
    from axolotl.prompt_strategies import load
    from datasets import Dataset

    cfg = configuration(sequence_len=64, reward_model=True)
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "A?"}]
    rows = [sample(prompt, answer, "no"), sample(prompt, "long " * 99, "no")]
    strategy = load("llmpipe_pairs_for_tests.reward", tokenizer, cfg, cfg["datasets"][0])
    found = strategy.wrap_dataset(Dataset.from_list(rows))
    assert len(found) == 1
    for name, text in (("chosen", answer), ("rejected", "no")):
        whole = tokenizer.apply_chat_template(
            [*prompt, {"role": "assistant", "content": text}], tokenize=False
        )
        assert found[0][f"{name}_ids"] == tokenizer(whole, add_special_tokens=False)["input_ids"]
