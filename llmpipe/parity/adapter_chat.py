"""Compare how an adapter's tokenizer writes and ends chats with that of its base model.

A training may have another chat template or end token than the base. A server that applies the
adapter to its base asks with the base's, unless it is told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmpipe.backends.huggingface.chat_tokens import Chat, render_chat
from llmpipe.backends.huggingface.inference import load_tokenizer
from llmpipe.errors import StageError
from llmpipe.parity.golden import golden_chats

_TOKENIZER = "tokenizer_config.json"
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Return the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def chat_changes(adapter: Path, base: Path) -> Iterator[str]:
    """Yield how chats with an adapter differ from those with its base.

    Templates that are written differently are alike if they render every golden chat alike, with
    and without a tool. An adapter without a tokenizer has its base's.

    Raises:
        StageError: A tokenizer cannot be read.
    """
    if not (adapter / _TOKENIZER).is_file():
        return
    if not (base / _TOKENIZER).is_file():
        yield "its base has no tokenizer"
        return
    own, before = load_tokenizer(adapter), load_tokenizer(base)
    if own.eos_token != before.eos_token:
        yield f"its answers end with {own.eos_token!r}, those of its base with {before.eos_token!r}"
    if own.chat_template == before.chat_template:
        return
    if not before.chat_template:
        yield "it was trained with a chat template, and its base has none"
    elif chat := _rendered_differently(own, before):
        yield f"its chat template is not its base's: it renders the chat {chat!r} differently"


def _rendered_differently(one: Any, other: Any) -> str | None:
    """Return the name of the first golden chat that two tokenizers render differently."""
    for chat in golden_chats():
        for tools in (None, [_TOOL]):
            if _render(one, chat.messages, tools) != _render(other, chat.messages, tools):
                return chat.name
    return None


def _render(tokenizer: Any, chat: Chat, tools: list[Any] | None) -> str | None:
    """Return a chat as text, or None if the template refuses it."""
    try:
        return render_chat(tokenizer, chat, answer_next=True, tools=tools)
    except StageError:
        return None
