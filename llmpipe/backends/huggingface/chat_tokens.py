"""Convert a chat to the token ids that a model reads, with its tokenizer's chat template.

Templates run in transformers' sandbox. `llmpipe.backends.huggingface.inference` loads tokenizers;
nothing here needs torch.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpipe.backends.reasoning import TAG_TEXTS, opened_by
from llmpipe.errors import StageError

Chat = Sequence[Mapping[str, object]]
"""The turns of a conversation, each with its ``role`` and ``content``."""


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """A chat as token ids. The answer begins at ``start`` and ends with its end-of-turn token."""

    ids: list[int]
    start: int


def has_chat_template(folder: Path) -> bool:
    """Return whether a model folder has a chat template where transformers looks for one.

    This does not load the tokenizer.
    """
    if any((folder / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))


def render_chat(
    tokenizer: Any, chat: Chat, *, answer_next: bool = False, tools: list[Any] | None = None
) -> str:
    """Return a chat as the text that the model reads; ``answer_next`` opens the assistant's turn.

    Raises:
        StageError: The tokenizer has no chat template, or the template refuses the chat.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise StageError(
            "the model's tokenizer has no chat template, so it cannot render a chat",
            hint="use an instruct model, or train with `chat_template` in the axolotl block",
        )
    from jinja2.exceptions import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            [dict(message) for message in chat],
            tokenize=False,
            add_generation_prompt=answer_next,
            tools=tools,
        )
    except TemplateError as error:
        raise StageError(
            f"the model's chat template refuses the chat: {error}",
            hint=f"the roles are {', '.join(str(message['role']) for message in chat)}",
        ) from None
    return text


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Tokenize a text; special tokens in it are read as such, and none are added."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def token_counts(tokenizer: Any, texts: Iterable[str], *, at_once: int = 512) -> Iterator[int]:
    """Yield the number of tokens of every text as in `token_ids`, many texts at a time."""
    waiting = iter(texts)
    while batch := list(itertools.islice(waiting, at_once)):
        yield from map(len, tokenizer(batch, add_special_tokens=False)["input_ids"])


def encode_answer(tokenizer: Any, chat: Chat) -> EncodedAnswer:
    """Tokenize a chat and find its last assistant turn, including its end-of-turn token.

    The chat is rendered with and without the answer. The second text must be the beginning of the
    first, in text and in tokens; otherwise the question differs from the training. Only a reasoning
    tag that the prompt opens may be missing: many templates omit it in finished turns, and then the
    answer is scored as in those.

    Raises:
        StageError: The last turn is not the assistant's, or the two renderings disagree.
    """
    if not chat or chat[-1]["role"] != "assistant":
        raise StageError("the last turn of the chat is not the assistant's: no answer to score")
    prompt = render_chat(tokenizer, chat[:-1], answer_next=True)
    whole = render_chat(tokenizer, chat)
    if not whole.startswith(prompt):
        prompt = _without_opened_tag(prompt, str(chat[-2]["content"]) if len(chat) > 1 else "")
    prompt_ids, ids = token_ids(tokenizer, prompt), token_ids(tokenizer, whole)
    if not whole.startswith(prompt) or ids[: len(prompt_ids)] != prompt_ids:
        raise StageError(
            "the model's chat template renders a question differently once its answer follows",
            hint=f"asked:    …{prompt[-60:]!r}\nanswered: …{whole[: len(prompt)][-60:]!r}",
        )
    return EncodedAnswer(_until_end_of_turn(tokenizer, ids, len(prompt_ids)), len(prompt_ids))


def turn_ends(tokenizer: Any) -> list[int]:
    """Return the control tokens that the chat template writes after an answer, in order.

    The list is empty if plain text ends a turn.

    Raises:
        StageError: The template refuses a question with its answer.
    """
    question, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "parity"}
    behind = render_chat(tokenizer, [question, answer]).rpartition(answer["content"])[2]
    control = control_ids(tokenizer)
    return [token for token in token_ids(tokenizer, behind) if token in control]


def decode_reply(tokenizer: Any, ids: Sequence[int]) -> str:
    """Decode a reply to text, without control tokens but with reasoning tags."""
    added: Mapping[int, Any] = tokenizer.added_tokens_decoder
    hidden = {
        i for i in control_ids(tokenizer) if i not in added or added[i].content not in TAG_TEXTS
    }
    text: str = tokenizer.decode(
        [token for token in ids if token not in hidden], clean_up_tokenization_spaces=False
    )
    return text


def _without_opened_tag(prompt: str, question: str) -> str:
    tags = opened_by(prompt, question)
    return prompt.rpartition(tags.start)[0] if tags else prompt


def _until_end_of_turn(tokenizer: Any, ids: list[int], start: int) -> list[int]:
    """Cut the ids after the turn's last control token (often a line break)."""
    control = control_ids(tokenizer)
    last = max((i for i in range(start, len(ids)) if ids[i] in control), default=len(ids) - 1)
    return ids[: last + 1]


def control_ids(tokenizer: Any) -> set[int]:
    """Return the ids of control tokens: turn markers, EOS, padding."""
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    return {i for i, token in added.items() if token.special} | set(tokenizer.all_special_ids)
