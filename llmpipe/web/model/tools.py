"""The tools of chats and responses, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from llmpipe.web.errors import ApiError, unsupported
from llmpipe.web.model.checks import Served, require_parameters, require_tools
from llmpipe.web.model.fields import TEXT, Fields

CHOICE = Literal["none", "auto", "required"]


class Function(Fields, frozen=True, kw_only=True):
    """A function that the model may call."""

    name: TEXT
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Fields, frozen=True, kw_only=True):
    """A tool of a chat."""

    type: Literal["function"]
    function: Function


class ResponseTool(Function, frozen=True, kw_only=True):
    """A tool of a response; tools that OpenAI runs itself are not supported."""

    type: Literal["function"]


class Named(Fields, frozen=True):
    """A function by its name."""

    name: TEXT


class NamedTool(Fields, frozen=True, kw_only=True):
    """The one tool that must be called, in the format of a chat."""

    type: Literal["function"]
    function: Named


class NamedResponseTool(Named, frozen=True, kw_only=True):
    """The one tool that must be called, in the format of a response."""

    type: Literal["function"]


class Tooled(Protocol):
    """A request with tools."""

    @property
    def tools(self) -> Sequence[Tool | ResponseTool] | None:
        """The tools that the model may call."""

    @property
    def tool_choice(self) -> str | NamedTool | NamedResponseTool | None:
        """Whether it must call a tool, and which."""

    @property
    def parallel_tool_calls(self) -> bool | None:
        """Whether it may call several tools at once."""


def require_choice(request: Tooled, served: Served, *, shaped: bool) -> None:
    """Require that the model can call the tools of a request as it asks.

    Args:
        request: The request.
        served: The model.
        shaped: Whether a schema or a grammar shapes the answer; llama.cpp then allows no call.

    Raises:
        ApiError: The model cannot.
    """
    named = _name_of(request.tool_choice)
    tools = [_function_of(tool) for tool in request.tools or []]
    if named is not None and named not in [tool.name for tool in tools]:
        known = ", ".join(tool.name for tool in tools) or "there are none"
        told = f"`tool_choice` names {named!r}, which is not among the tools: {known}"
        raise ApiError(400, "invalid_request", told, reason="`tool_choice` names no tool")
    if not tools:
        if request.tool_choice == "required":
            raise unsupported("`tool_choice: required` without `tools`")
        return
    require_tools(served, parallel=bool(request.parallel_tool_calls))
    if shaped and request.tool_choice != "none":
        raise unsupported(
            "`tools` beside a schema or a grammar, which would forbid every call; leave one out, or"
            " say `tool_choice: none`"
        )
    within = ".function" if isinstance((request.tools or [])[0], Tool) else ""
    for number, tool in enumerate(tools):
        place = f"tools[{number}]{within}"
        require_parameters(tool.parameters, strict=bool(tool.strict), place=place)


def supported_tools(request: Tooled, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a checked request with the tools in a form that llama.cpp supports.

    llama.cpp does not support a named choice, so the named tool becomes the only tool, and a call
    is required. Without tools, the fields about tools are dropped.
    """
    if not request.tools:
        without = ("tools", "tool_choice", "parallel_tool_calls")
        return {name: value for name, value in fields.items() if name not in without}
    named = _name_of(request.tool_choice)
    if named is None:
        return fields
    pairs = zip(fields["tools"], request.tools, strict=True)
    kept = [given for given, tool in pairs if _function_of(tool).name == named]
    return fields | {"tools": kept, "tool_choice": "required"}


def _function_of(tool: Tool | ResponseTool) -> Function:
    return tool.function if isinstance(tool, Tool) else tool


def _name_of(choice: str | NamedTool | NamedResponseTool | None) -> str | None:
    if isinstance(choice, NamedTool):
        return choice.function.name
    return choice.name if isinstance(choice, NamedResponseTool) else None
