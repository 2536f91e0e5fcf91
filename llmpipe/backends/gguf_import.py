"""Turn a GGUF file into a Hugging Face folder that can be trained: weights, config, tokenizer.

The weights are read by transformers and written as float32, the one type that holds what the
quantised blocks mean exactly. The tokenizer is rebuilt from the GGUF's own tokens, merges and ids:
transformers' reader of GGUF tokenizers takes the wrong end token and switches byte fallback on.
The recipe depends on ``tokenizer.ggml.pre``, so only those listed in `RECIPES` are accepted.

Nothing here proves that the tokenizer is right: `llmpipe.parity` does. A GGUF is untrusted: call
this in a process of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.contracts import write_json
from llmpipe.errors import StageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

ARCHITECTURE = "general.architecture"
CHAT_TEMPLATE = "tokenizer.chat_template"
TOKENIZER_MODEL = "tokenizer.ggml.model"
PRE_TOKENIZER = "tokenizer.ggml.pre"
TOKENS = "tokenizer.ggml.tokens"
TOKEN_TYPES = "tokenizer.ggml.token_type"
MERGES = "tokenizer.ggml.merges"
ADD_BOS = "tokenizer.ggml.add_bos_token"
SPECIAL_IDS = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}
"""Hugging Face's name of each special token, and the GGUF field that holds its id."""


class TokenType(IntEnum):
    """What GGUF says of each token; the values are the file format's."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


def read_gguf(gguf: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """Give a GGUF's metadata fields and the shape of each tensor (rows first, as in PyTorch).

    Raises:
        StageError: the file is missing, cut short, or no GGUF.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(gguf)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        shapes = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in reader.tensors}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise StageError(
            f"{gguf.name} cannot be read as GGUF: {error}",
            hint="the file may be cut short or of another format: fetch or export it again",
        ) from error
    return fields, shapes


def import_model(gguf: Path, out: Path) -> dict[str, Any]:
    """Write the Hugging Face folder of ``gguf`` into ``out`` and give back the GGUF's fields.

    Raises:
        StageError: the file is unreadable, or its architecture or tokenizer has no recipe.
    """
    fields, _ = read_gguf(gguf)
    tokenizer = build_tokenizer(fields, gguf.name)  # the cheap refusal comes first
    out.mkdir(parents=True, exist_ok=True)
    _write_weights(gguf, str(fields.get(ARCHITECTURE)), out)
    write_tokenizer(tokenizer, fields, out)
    return fields


def build_tokenizer(fields: Mapping[str, Any], label: str) -> Tokenizer:
    """Rebuild the tokenizer that a GGUF's fields describe.

    Raises:
        StageError: no recipe here is known to give llama.cpp's ids for this kind of tokenizer.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    kind, pre = fields.get(TOKENIZER_MODEL), fields.get(PRE_TOKENIZER)
    recipe = RECIPES.get((str(kind), str(pre)))
    if recipe is None:
        known = ", ".join(f"{model}/{name}" for model, name in sorted(RECIPES))
        raise StageError(
            f"{label} has a tokenizer of kind {kind}/{pre}, which cannot be imported ({known} can)",
            hint="name the original Hugging Face model (a hub id or a folder) as the base instead",
        )
    tokens: list[str] = fields[TOKENS]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=[_split_merge(merge) for merge in fields[MERGES]],
        )
    )
    tokenizer.pre_tokenizer = recipe()
    tokenizer.decoder = decoders.ByteLevel()
    types = fields[TOKEN_TYPES]
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == TokenType.CONTROL
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken(token, special=False, normalized=False)
            for token, kind in zip(tokens, types, strict=True)
            if kind == TokenType.USER_DEFINED
        ]
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, fields: Mapping[str, Any], out: Path) -> None:
    """Write a rebuilt tokenizer, its special tokens and its chat template as Hugging Face files."""
    from transformers import PreTrainedTokenizerFast

    tokens: list[str] = fields[TOKENS]
    special = {name: tokens[fields[key]] for name, key in SPECIAL_IDS.items() if key in fields}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=fields.get(CHAT_TEMPLATE),
        add_bos_token=bool(fields.get(ADD_BOS, False)),
        **special,
    ).save_pretrained(out)
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    # The generic class takes tokenizer.json as it is. A named one (GPT2Tokenizer) would put its own
    # pre-tokenizer in place of ours without a word, and two spaces before a digit would come apart.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(path, config)


def _write_weights(gguf: Path, architecture: str, out: Path) -> None:
    from transformers import AutoModelForCausalLM

    try:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype="float32", local_files_only=True
        )
    except (ValueError, KeyError, NotImplementedError, OSError) as error:
        raise StageError(
            f"transformers cannot read the weights of {gguf.name} ({architecture}): {error}",
            hint="name the original Hugging Face model (a hub id or a folder) as the base instead",
        ) from error
    model.save_pretrained(out)


def _split_merge(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _smollm() -> PreTokenizer:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


RECIPES: Mapping[tuple[str, str], Callable[[], PreTokenizer]] = {("gpt2", "smollm"): _smollm}
"""How text is split before BPE, by GGUF tokenizer model and pre-tokenizer. An entry belongs here
only when its ids were shown to equal llama.cpp's on the golden texts."""
