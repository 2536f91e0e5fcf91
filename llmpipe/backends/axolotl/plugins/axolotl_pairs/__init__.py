"""Axolotl prompt strategies for pairs of answers, rendered by the training's own chat template.

Axolotl's own strategy for ``rl: dpo`` renders an answer behind a made-up question and looks for
the answer's text in it: an answer ``A`` is found in "AI assistant", one that the template trims is
not found at all. Here the whole conversation is rendered, and the answer is what follows the
prompt. `render` is named as the data set's ``type``. `labeled` does the same for single answers
with a label (KTO), `axolotl_pairs.reward` for reward models. `prompts` hands over prompts (GRPO).

This folder is copied beside each configuration that llmpipe compiles and needs nothing of llmpipe.
Rows hold ``prompt`` (turns), ``chosen`` and ``rejected``, or ``completion`` (one turn each), and
``tools`` as JSON texts, and ``row``, which says where a row stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from axolotl.utils.chat_templates import get_chat_template_from_config

Renderer = Callable[[Mapping[str, Any], Any], tuple[str, ...]]

REFUSED = "the chat template cannot write this row"
"""What is said of a row for which a chat template raises an error."""


def render(cfg: Any, dataset_idx: int = 0, **_: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return what Axolotl maps over the rows of ``rl: dpo``, ``ipo``, ``simpo`` and ``orpo``."""
    return _mapped(cfg, dataset_idx, ("chosen", "rejected")), {"remove_columns": ["tools", "row"]}


def labeled(cfg: Any, dataset_idx: int = 0, **_: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return what Axolotl maps over the rows of ``rl: kto``: one answer, and whether it is good."""
    texts = _mapped(cfg, dataset_idx, ("completion",))

    def labeled_texts(sample: Mapping[str, Any], tokenizer: Any = None) -> dict[str, Any]:
        return {**texts(sample, tokenizer), "label": json.loads(sample["label"])}

    return labeled_texts, {"remove_columns": ["tools", "row"]}


def prompts(cfg: Any, dataset_idx: int = 0, **_: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return what Axolotl maps over the rows of ``rl: grpo``: the turns that TRL will render."""

    def turns(sample: Mapping[str, Any], tokenizer: Any = None) -> dict[str, Any]:
        return {"prompt": json.loads(sample["prompt"])}

    return turns, {"remove_columns": ["tools"]}


def _mapped(cfg: Any, dataset_idx: int, names: Sequence[str]) -> Callable[..., dict[str, Any]]:
    """Return a function that makes a row's prompt, and its answers under their names, text."""
    rendered = renderer(cfg, cfg["datasets"][dataset_idx], names)
    # TRL's CPO and ORPO trainers add the tokens themselves if they are missing.
    adds_special = cfg.rl not in ("simpo", "orpo")

    def texts(sample: Mapping[str, Any], tokenizer: Any = None) -> dict[str, Any]:
        prompt, *wholes = rendered(sample, tokenizer)
        ends = [_closed(whole, len(prompt), tokenizer) for whole in wholes]
        cut = _boundary(len(prompt), ends, tokenizer, sample["row"])
        answers = [whole[cut:] for whole in ends]
        opening = _begun(ends[0][:cut], tokenizer, adds_special=adds_special)
        for whole, answer in zip(ends, answers, strict=True):
            if not _is_seen(opening, answer, whole, tokenizer, adds_special=adds_special):
                raise ValueError(
                    f"{sample['row']}: the tokenizer does not give the chat template's text back "
                    "as tokens; does it add an end token to every text?"
                )
        return {"prompt": opening, **dict(zip(names, answers, strict=True))}

    return texts


def renderer(cfg: Any, entry: Any, names: Sequence[str] = ("chosen", "rejected")) -> Renderer:
    """Return a function that renders a row: its prompt, and the whole with each of its answers.

    All wholes begin with the prompt, which ends where the assistant is to speak.
    """

    def rendered(sample: Mapping[str, Any], tokenizer: Any) -> tuple[str, ...]:
        turns = _as_templates_take(json.loads(sample["prompt"]))
        options: dict[str, Any] = {
            "chat_template": get_chat_template_from_config(cfg, entry, tokenizer),
            "tokenize": False,
            **(cfg.chat_template_kwargs or {}),
        }
        if sample["tools"]:
            options["tools"] = json.loads(sample["tools"])
        answers = [_as_templates_take([json.loads(sample[name])]) for name in names]
        try:
            prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, **options)
            wholes = [tokenizer.apply_chat_template(turns + a, **options) for a in answers]
        except Exception as error:  # a template raises whatever it likes
            raise ValueError(f"{sample['row']}: {REFUSED}: {error}") from error
        for name, whole in zip(names, wholes, strict=True):
            if not whole.startswith(prompt):
                raise ValueError(
                    f"{sample['row']}: with the {name} answer the chat template renders another "
                    f"prompt: {_difference(prompt, whole)}"
                )
        return (prompt, *wholes)

    return rendered


def _as_templates_take(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return turns without nulls and with the arguments of tool calls as objects.

    Axolotl does the same to conversations.
    """
    turns = [{key: value for key, value in turn.items() if value is not None} for turn in turns]
    for turn in turns:
        for call in turn.get("tool_calls") or ():
            function = call.get("function") or {}
            if isinstance(function.get("arguments"), str):
                function["arguments"] = json.loads(function["arguments"])
    return turns


def _closed(whole: str, start: int, tokenizer: Any) -> str:
    """End a rendered conversation where the end-of-turn token of its answer ends.

    Templates write a line break after it, behind which the trainer would put another end token. A
    conversation that ends in no special token is left as it is. The answer begins at ``start``. The
    end token that the trainers add where it is missing is written, so that Axolotl counts it.
    """
    special = {str(t) for t in tokenizer.added_tokens_decoder.values() if t.special}
    bare = whole.rstrip()
    if len(bare) > start and bare.endswith(tuple(special)):
        whole = bare
    end = tokenizer.eos_token
    return whole if not end or whole.endswith(end) else whole + end


def _boundary(start: int, wholes: list[str], tokenizer: Any, row: str) -> int:
    """Return where the answers begin: after the last token that is whole on both sides.

    An answer that begins with a line break can share a token with the end of the prompt. The
    trainer would drop that token from the answer; so the answer begins with it instead.
    """
    ids = [_ids(whole, tokenizer) for whole in wholes]
    for cut in range(start, 0, -1):
        head = _ids(wholes[0][:cut], tokenizer)
        if all(tokens[: len(head)] == head for tokens in ids):
            return cut
    raise ValueError(f"{row}: the tokenizer joins the whole prompt with the answer")


def _begun(prompt: str, tokenizer: Any, *, adds_special: bool) -> str:
    """Return the prompt so that exactly one begin token stands before it where one is to stand.

    Where the tokenizer adds it by itself, the template's is taken away; where the trainer adds a
    missing one, it is written, so that Axolotl counts it.
    """
    begin, first = tokenizer.bos_token, tokenizer.bos_token_id
    if not begin:
        return prompt
    ids = tokenizer(prompt, add_special_tokens=adds_special)["input_ids"]
    if adds_special:
        return prompt.removeprefix(begin) if ids[:2] == [first, first] else prompt
    return prompt if ids[:1] == [first] else begin + prompt


def _is_seen(prompt: str, answer: str, whole: str, tokenizer: Any, *, adds_special: bool) -> bool:
    """Return whether the trainer will see the tokens of the whole, cut where the prompt ends.

    A begin token that comes first, though the template has none, is the trainer's own.
    """
    head, seen = (
        tokenizer(text, add_special_tokens=adds_special)["input_ids"]
        for text in (prompt, prompt + answer)
    )
    wanted = _ids(whole, tokenizer)
    return seen[: len(head)] == head and seen in (wanted, [tokenizer.bos_token_id, *wanted])


def _ids(text: str, tokenizer: Any) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _difference(prompt: str, whole: str) -> str:
    """Quote the first place where two texts differ."""
    at = next(
        (i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(whole)
    )
    around = slice(max(0, at - 20), at + 40)
    return f"…{prompt[around]!r} before, …{whole[around]!r} with it"
