"""Convert a GGUF file to a trainable Hugging Face folder: weights, config, tokenizer.

transformers reads the weights (`llmpipe.backends.huggingface.gguf_weights`). They are written as
float32, the only type that represents the quantized blocks exactly. The tokenizer is rebuilt from
the GGUF's own tokens, merges and ids, because transformers' reader of GGUF tokenizers uses the
wrong end token and switches byte fallback on. The recipe depends on ``tokenizer.ggml.pre``, so only
the tokenizers in `RECIPES` are accepted.

`llmpipe.parity` proves that the tokenizer is right. A GGUF is untrusted, so call this in its own
process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.huggingface.gguf_weights import USE_THE_ORIGINAL, write_weights
from llmpipe.backends.llama_cpp.gguf_file import open_gguf, read_gguf
from llmpipe.contracts import write_json
from llmpipe.errors import StageError

__all__ = ["build_tokenizer", "import_model", "read_gguf", "write_tokenizer"]

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

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
"""Hugging Face's name of each special token, and the GGUF field with its id."""


class TokenType(IntEnum):
    """The type of each token, with the values of the GGUF format."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


def import_model(
    gguf: Path,
    out: Path,
    *,
    work: Path | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> None:
    """Write the Hugging Face folder of ``gguf``, a file or the first of its parts, into ``out``.

    Args:
        gguf: The file.
        out: The folder to write.
        work: A folder for the temporary joined file of a split GGUF; by default the parent of
            ``out``.
        warn: Called with a message about tensors that are left out.

    Raises:
        StageError: The file is unreadable, its architecture or tokenizer is not supported, or its
            tensors do not match the model.
    """
    opened = open_gguf(gguf)
    tokenizer = build_tokenizer(opened.fields, gguf.name)  # first, because it is the cheaper check
    out.mkdir(parents=True, exist_ok=True)
    write_weights(opened, out, work=work or out.parent, warn=warn)
    write_tokenizer(tokenizer, opened.fields, out)


def build_tokenizer(fields: Mapping[str, Any], label: str) -> Tokenizer:
    """Rebuild the tokenizer that a GGUF's fields describe.

    Raises:
        StageError: There is no recipe that is known to give llama.cpp's ids for this tokenizer.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models

    kind, pre = fields.get(TOKENIZER_MODEL), fields.get(PRE_TOKENIZER)
    recipe = RECIPES.get((str(kind), str(pre)))
    if recipe is None:
        known = ", ".join(f"{model}/{name}" for model, name in sorted(RECIPES))
        raise StageError(
            f"{label} has a tokenizer of kind {kind}/{pre}, which cannot be imported ({known} can)",
            hint=USE_THE_ORIGINAL,
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
    # The generic class uses tokenizer.json unchanged. A named one (GPT2Tokenizer) would silently
    # replace our pre-tokenizer, and two spaces before a digit would be split.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    write_json(path, config)


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
"""How text is split before BPE, by GGUF tokenizer model and pre-tokenizer. Add an entry only after
its ids were shown to equal llama.cpp's on the golden texts."""
