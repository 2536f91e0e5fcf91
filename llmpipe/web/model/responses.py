"""OpenAI's responses, as far as llama.cpp converts them to chats; it silently drops the rest.

Each input item is converted to the chat message that llama.cpp makes of it, and checked like the
messages of a chat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta

from llmpipe.web.errors import unsupported
from llmpipe.web.model.checks import (
    Served,
    invalid_field,
    require_template_knows,
)
from llmpipe.web.model.conversation import (
    CalledFunction,
    ChatMessage,
    ToolCall,
    require_conversation,
)
from llmpipe.web.model.fields import AMOUNT, SHARE, TEXT, Fields, Request
from llmpipe.web.model.requests import StreamOptions
from llmpipe.web.model.schemas import require_enforced
from llmpipe.web.model.tools import (
    CHOICE,
    NamedResponseTool,
    ResponseTool,
    require_choice,
    supported_tools,
)
from llmpipe.web.request_parsing import converted

INPUT, OUTPUT = "input_text", "output_text"
"""The types of texts: those of the caller, and those of the model."""
FORMAT_FIELDS = {
    "text": frozenset[str](),
    "json_object": frozenset[str](),
    "json_schema": frozenset(("name", "description", "schema", "strict")),
}


class _Item(Fields, frozen=True, kw_only=True):
    """An input item. Clients send back its `id` and `status`, which the model does not read."""

    id: str | None = None
    status: str | None = None


class Message(_Item, frozen=True, kw_only=True):
    """A message."""

    type: Literal["message"]
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[dict[str, Any]]
    name: str | None = None

    def as_message(self) -> ChatMessage:
        """Return the message that llama.cpp makes of it."""
        kinds = (INPUT, OUTPUT) if self.role == "assistant" else (INPUT,)
        return ChatMessage(role=self.role, content=_texts(self.content, kinds), name=self.name)


class Call(_Item, frozen=True, kw_only=True):
    """A call of a function."""

    type: Literal["function_call"]
    call_id: str
    name: TEXT
    arguments: str

    def as_message(self) -> ChatMessage:
        """Return the message that llama.cpp makes of it."""
        called = CalledFunction(self.name, self.arguments)
        call = ToolCall(type="function", function=called, id=self.call_id)
        return ChatMessage(role="assistant", tool_calls=[call])


class CallOutput(_Item, frozen=True, kw_only=True):
    """The output of a function."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[dict[str, Any]]

    def as_message(self) -> ChatMessage:
        """Return the message that llama.cpp makes of it."""
        content = _texts(self.output, (INPUT,))
        return ChatMessage(role="tool", content=content, tool_call_id=self.call_id)


class Thought(_Item, frozen=True, kw_only=True):
    """The model's reasoning."""

    type: Literal["reasoning"]
    summary: list[Any]
    content: Annotated[list[dict[str, Any]], Meta(min_length=1)]

    def as_message(self) -> ChatMessage:
        """Return the message that llama.cpp makes of it.

        Raises:
            ApiError: llama.cpp would drop a part of it.
        """
        if self.summary or len(self.content) > 1:
            raise unsupported("reasoning except as one text in its `content`")
        text = self.content[0].get("text")
        if self.content[0].keys() - {"type", "text"} or not isinstance(text, str):
            raise invalid_field("the `content` of reasoning is not a text")
        return ChatMessage(role="assistant", reasoning_content=text)


ITEMS: Mapping[str, type[Message | Call | CallOutput | Thought]] = {
    "message": Message,
    "function_call": Call,
    "function_call_output": CallOutput,
    "reasoning": Thought,
}


class Reasoning(Fields, frozen=True):
    """How much the model reasons."""

    effort: str | None = None


class Text(Fields, frozen=True, kw_only=True):
    """The format of the answer."""

    format: dict[str, Any] | None = None
    verbosity: Literal["medium"] | None = None

    def check(self) -> None:
        """Require that the answer will have the format.

        Raises:
            ApiError: It will not.
        """
        if self.format is None:
            return
        kind = self.format.get("type")
        if not isinstance(kind, str) or kind not in FORMAT_FIELDS:
            raise invalid_field(f"`text.format.type` is one of {', '.join(FORMAT_FIELDS)}")
        for name in self.format.keys() - {"type"} - FORMAT_FIELDS[kind]:
            raise invalid_field(f"`text.format` of the type {kind} has no field {name!r}")
        if kind == "json_schema":
            if "schema" not in self.format:
                raise invalid_field("`text.format.schema` is missing")
            require_enforced(self.format["schema"], "text.format.schema")

    @property
    def shape(self) -> dict[str, Any] | None:
        """The format as a chat's `response_format`, which llama.cpp reads; None for any text."""
        if self.format is None or self.format["type"] == "text":
            return None
        kind = self.format["type"]
        wrapped = {name: value for name, value in self.format.items() if name != "type"}
        return {"type": kind, kind: wrapped} if wrapped else {"type": kind}


class ResponsesRequest(Request, frozen=True, kw_only=True):
    """A response to a text or a conversation. Nothing is stored."""

    input: TEXT | Annotated[list[dict[str, Any]], Meta(min_length=1)]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: AMOUNT | None = None
    top_p: SHARE | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: CHOICE | NamedResponseTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: Text | None = None

    def check(self, served: Served) -> None:
        """See `Request.check`."""
        served.require_name(self.model)
        if self.stream_options is not None:
            if self.stream_options.include_usage is not None:
                raise unsupported("`stream_options.include_usage`; a response always includes it")
            self.stream_options.check(stream=bool(self.stream))
        if self.text is not None:
            self.text.check()
        require_choice(self, served, shaped=self._shape is not None)
        if self.reasoning and self.reasoning.effort is not None:
            require_template_knows("reasoning_effort", served)
        if isinstance(self.input, list):
            require_conversation(self._messages(self.input), served, "input")

    def upstream_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """See `Request.upstream_fields`."""
        left_out = ("stream_options", "text")
        worded = {name: value for name, value in fields.items() if name not in left_out}
        if self._shape is not None:
            worded["response_format"] = self._shape
        if isinstance(self.input, list):
            items = (item for item in worded["input"] if not _is_empty_thought(item))
            worded["input"] = [{"type": "message"} | item for item in items]
        return supported_tools(self, worded)

    @property
    def _shape(self) -> dict[str, Any] | None:
        return self.text.shape if self.text is not None else None

    def _messages(self, items: list[dict[str, Any]]) -> list[ChatMessage]:
        messages = []
        for number, item in enumerate(items):
            kind = ITEMS.get(str(item.get("type", "message")))
            if kind is None:
                raise unsupported("an item of the type", str(item.get("type")))
            if not _is_empty_thought(item):
                typed = {"type": "message"} | item
                messages.append(converted(typed, kind, f"input[{number}]").as_message())
        if not messages:
            raise invalid_field("`input` contains no message")
        return messages


def _is_empty_thought(item: Mapping[str, Any]) -> bool:
    """Return whether an item is reasoning without text, as OpenAI's models send it."""
    said = item.keys() - {"type", "id", "status"}
    return item.get("type") == "reasoning" and not any(item[name] for name in said)


def _texts(content: str | list[dict[str, Any]], kinds: tuple[str, ...]) -> Any:
    """Return content with its text parts in a chat's format.

    Raises:
        ApiError: A part has another type.
    """
    if isinstance(content, str):
        return content
    for part in content:
        if part.get("type") not in kinds:
            raise unsupported("content of the type", str(part.get("type")))
    return [part | {"type": "text"} for part in content]
