"""The messages of chats and responses, checked against what the chat template reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from llmpipe.web.errors import unsupported
from llmpipe.web.model.checks import (
    Served,
    invalid_field,
    require_template_knows,
    require_text_parts,
    require_tools,
)
from llmpipe.web.model.fields import TEXT, Fields


class CalledFunction(Fields, frozen=True):
    """The function of a call, with its arguments as JSON."""

    name: TEXT
    arguments: str | dict[str, Any]


class ToolCall(Fields, frozen=True, kw_only=True):
    """A call that the model made."""

    type: Literal["function"]
    function: CalledFunction
    id: str | None = None
    index: int | None = None
    """Its index in a stream: clients that assemble a call from a stream send it back."""


class ChatMessage(Fields, frozen=True, kw_only=True):
    """A message of a conversation, in the form that templates read."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = None
    """These four fields are accepted only empty, as OpenAI's clients send them back."""

    def check(self, served: Served, place: str) -> None:
        """Require that the template reads all of the message.

        The reasoning of an earlier answer is an exception: most templates leave it out.

        Raises:
            ApiError: The template would ignore a part of the message.
        """
        self._check_role(served, place)
        if isinstance(self.content, list):
            require_text_parts(self.content)
        if self.annotations:
            raise unsupported("`annotations` in a message")
        for number, call in enumerate(self.tool_calls or []):
            _require_arguments(call.function.arguments, served, f"{place}.tool_calls[{number}]")

    def _check_role(self, served: Served, place: str) -> None:
        """Require that the message has the fields of its role, and no others."""
        if self.role == "tool" or self.tool_calls:
            require_tools(served)
        if self.role != "assistant":
            if self.content is None:
                raise invalid_field(f"{place}: `content` is missing")
            if self.reasoning_content or self.tool_calls:
                raise unsupported("`reasoning_content` or `tool_calls` except of the assistant")
        if self.role != "tool" and self.tool_call_id is not None:
            raise unsupported("`tool_call_id` except of a tool")
        if self.name is not None and self.role not in ("tool", *served.named_roles):
            raise unsupported(
                "the `name` of the speaker, which the chat template of the model does not read;"
                " write it into the `content`"
            )


def require_conversation(messages: Sequence[ChatMessage], served: Served, place: str) -> None:
    """Require that the model reads all of a conversation.

    Args:
        messages: The messages.
        served: The model.
        place: The position of the messages in the request.

    Raises:
        ApiError: A part of the conversation would be ignored.
    """
    for number, message in enumerate(messages):
        message.check(served, f"{place}[{number}]")
    for message in reversed(messages):  # only the messages that the model continues
        if message.role != "assistant":
            break
        if message.reasoning_content:
            require_template_knows("reasoning_content", served)


def _require_arguments(given: str | dict[str, Any], served: Served, place: str) -> None:
    """Require a JSON object as arguments if the template reads their keys."""
    if isinstance(given, dict) or not served.abilities.get("supports_object_arguments"):
        return
    try:
        sound = isinstance(json.loads(given), dict)
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise invalid_field(f"{place}.function.arguments: must be a JSON object as a text")
