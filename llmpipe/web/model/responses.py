"""OpenAI's responses, as far as llama.cpp makes chats of them; it drops what it has no chat for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmpipe.web.errors import unsupported
from llmpipe.web.model.checks import (
    Served,
    require_parameters,
    require_template_knows,
    require_text_parts,
    require_tools,
)

TEXT_PARTS = ("input_text", "output_text")


class ResponseTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A function that the model may call; tools that OpenAI runs are not to be had."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Reasoning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much the model thinks."""

    effort: str | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """What came before: a message, a call of a function, or what it gave."""

    type: str = "message"
    content: str | list[dict[str, Any]] | None = None

    def check(self, served: Served) -> None:
        """Make sure that the model reads all of it.

        Raises:
            ApiError: it does not.
        """
        if self.type.startswith("function_call"):
            require_tools(served)
        elif self.type not in ("message", "reasoning"):
            raise unsupported("an item of the type", self.type)
        if isinstance(self.content, list) and self.type == "message":
            require_text_parts(self.content, TEXT_PARTS)


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A response to a text or a conversation, of which nothing is kept."""

    input: Annotated[str, Meta(min_length=1)] | list[Item]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    stream: bool | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: dict[str, Any] | None = None

    def check(self, served: Served) -> None:
        """Make sure that all that is asked for can be had of this model.

        Raises:
            ApiError: something cannot.
        """
        served.require_name(self.model)
        if self.tools:
            require_tools(served, parallel=bool(self.parallel_tool_calls))
            for number, tool in enumerate(self.tools):
                require_parameters(
                    tool.parameters, strict=bool(tool.strict), place=f"tools[{number}]"
                )
        elif self.tool_choice in ("auto", "required") or self.parallel_tool_calls:
            raise unsupported("`tool_choice` or `parallel_tool_calls` without `tools`")
        if self.reasoning and self.reasoning.effort is not None:
            require_template_knows("reasoning_effort", served)
        if self.text and self.text != {"format": {"type": "text"}}:
            raise unsupported("`text` of another format; /v1/chat/completions takes schemas")
        for item in self.input if isinstance(self.input, list) else ():
            item.check(served)
