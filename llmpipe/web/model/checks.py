"""Check a request against what the served model supports."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from llmpipe.web.errors import ApiError, require_model, unsupported
from llmpipe.web.model.schemas import require_enforced, require_sound

MOST_DIGITS = 12
"""The maximum digits of a token in a text; no vocabulary needs more."""


@dataclass(frozen=True, slots=True)
class Served:
    """The served model."""

    name: str
    """Its name for callers: the stage, or a name that begins with it."""
    vocabulary: int
    """The number of its tokens."""
    template: str
    """The source of its chat template."""
    abilities: Mapping[str, bool] = field(default_factory=dict)
    """What the template supports according to llama.cpp, such as ``supports_tools``."""
    named_roles: Collection[str] = ()
    """The roles whose ``name`` the template reads."""
    tells_cached: bool = False
    """Whether callers can see how much of a prompt was cached."""
    no_tools: str = ""
    """Why the engine cannot call tools, if it cannot."""
    adapters: tuple[str, ...] = ()
    """The names of the LoRA adapters that its server has, by number."""
    adapter: int | None = None
    """The number of the adapter that it is; None for the model without an adapter."""
    others: tuple[str, ...] = ()
    """The names of the other models of the service."""

    def require_name(self, name: str | None) -> None:
        """Require that a caller names this model or none.

        Raises:
            ApiError: The caller names a model that the service does not have.
        """
        if name is not None and name != self.name:
            require_model(name, self.name, *self.others)

    def require_adapter(self, number: int) -> None:
        """Require that the server has an adapter.

        Raises:
            ApiError: It does not, or the request already names one by `model`.
        """
        if self.adapter is not None:
            raise unsupported("`lora` beside a `model` that is an adapter")
        if not 0 <= number < len(self.adapters):
            known = ", ".join(f"{at} ({name})" for at, name in enumerate(self.adapters))
            told = f"there is no adapter {number}; the service has {known or 'none'}"
            raise ApiError(400, "invalid_request", told, reason="there is no such adapter")

    def require_token(self, token: int) -> None:
        """Require that the model has a token.

        Raises:
            ApiError: It does not.
        """
        if not 0 <= token < self.vocabulary:
            told = f"the model has no token {token}; they go from 0 to {self.vocabulary - 1}"
            raise ApiError(400, "invalid_request", told, reason="there is no such token")

    def require_tokens(self, count: int | None, name: str) -> None:
        """Require that the model has as many tokens as a field asks for.

        Raises:
            ApiError: It has fewer.
        """
        if count is not None and count > self.vocabulary:
            told = f"`{name}` is {count}, but the model has {self.vocabulary} tokens"
            raise ApiError(400, "invalid_request", told, reason="more tokens than there are")


def require_tools(served: Served, *, parallel: bool = False) -> None:
    """Require that the chat template supports tools.

    Raises:
        ApiError: It does not, or it does not support several calls at once.
    """
    if served.no_tools:
        raise unsupported(f"tools: {served.no_tools}")
    if not served.abilities.get("supports_tools"):
        raise unsupported("tools: the chat template of the model does not support them")
    if parallel and not served.abilities.get("supports_parallel_tool_calls"):
        raise unsupported(
            "`parallel_tool_calls`: the chat template of the model does not support them"
        )


def require_parameters(schema: Mapping[str, Any] | None, *, strict: bool, place: str) -> None:
    """Require that calls of a tool can follow its parameters.

    Raises:
        ApiError: They cannot; or, with ``strict``, some keywords would not be enforced.
    """
    if schema is not None:
        require = require_enforced if strict else require_sound
        require(schema, f"{place}.parameters")


def require_template_knows(name: str, served: Served) -> None:
    """Require that the chat template reads a variable.

    Raises:
        ApiError: It does not.
    """
    if name not in _words_of(served.template):
        raise unsupported("what the chat template of the model does not read:", name)


@lru_cache(maxsize=8)
def _words_of(template: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", template))


def require_format(given: Mapping[str, Any] | None) -> None:
    """Require that an answer will have the requested format.

    Raises:
        ApiError: llama.cpp would ignore the format, or a part of it.
    """
    if given is None:
        return
    kind = given.get("type")
    allowed = {"text": set[str](), "json_object": {"schema"}, "json_schema": {"json_schema"}}
    if not isinstance(kind, str) or kind not in allowed:
        raise invalid_field("`response_format.type` is one of text, json_object, json_schema")
    for name in given.keys() - {"type"} - allowed[kind]:
        where = "; the schema belongs in `response_format.json_schema.schema`"
        hint = where if kind == "json_schema" and name == "schema" else ""
        raise invalid_field(f"`response_format` of the type {kind} has no field {name!r}{hint}")
    if kind == "json_object" and given.get("schema") is not None:
        require_enforced(given["schema"], "response_format.schema")
    if kind == "json_schema":
        wrapped = given.get("json_schema")
        if not isinstance(wrapped, dict) or "schema" not in wrapped:
            raise invalid_field("`response_format.json_schema.schema` is missing")
        for name in wrapped.keys() - {"name", "description", "schema", "strict"}:
            raise invalid_field(f"`response_format.json_schema` has no field {name!r}")
        require_enforced(wrapped["schema"], "response_format.json_schema.schema")


def require_known_biases(given: Mapping[str, Any] | list[Any] | None, served: Served) -> None:
    """Require that every bias names a token or a text and is a number (or false for never).

    Raises:
        ApiError: llama.cpp would ignore a bias.
    """
    pairs = list(given.items()) if isinstance(given, Mapping) else given or []
    for pair in pairs:
        if not _is_bias(pair):
            raise invalid_field("`logit_bias` maps tokens to numbers or to false")
        what = pair[0]
        if isinstance(what, str) and re.fullmatch(r"[+-]?[0-9]+", what):
            served.require_token(_token_of(what))
        elif isinstance(what, int):
            served.require_token(what)
        elif not what:
            raise invalid_field("`logit_bias` contains an empty text")


def _token_of(digits: str) -> int:
    """Return the token of a text of digits.

    Raises:
        ApiError: It has more digits than any token.
    """
    if len(digits) > MOST_DIGITS:
        raise invalid_field(f"`logit_bias` contains a token with more than {MOST_DIGITS} digits")
    return int(digits)


def _is_bias(pair: Any) -> bool:
    """Return whether a value is a token, or a text, with its bias."""
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        return False
    what, bias = pair
    return type(what) in (int, str) and (bias is False or type(bias) in (int, float))


def require_text_parts(parts: list[dict[str, Any]]) -> None:
    """Require that the parts of a message are texts, the only type that the model reads.

    Raises:
        ApiError: A part is something else, or llama.cpp would ignore one of its fields.
    """
    for part in parts:
        if part.get("type") != "text":
            raise unsupported("content of the type", str(part.get("type")))
        if not isinstance(part.get("text"), str):
            raise invalid_field("a part of a message lacks its `text`")
        for name in part.keys() - {"type", "text"}:
            raise unsupported("in a part of a message the field", name)


def require_one_prompt(prompt: str | list[Any]) -> None:
    """Require that a prompt is one text, or the tokens of one.

    Raises:
        ApiError: It is empty, or several prompts.
    """
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if not prompt:
        raise invalid_field("`prompt` is empty")
    tokens = isinstance(prompt, list) and all(type(token) is int for token in prompt)
    if not (isinstance(prompt, str) or tokens):
        raise unsupported("several prompts at once; `prompt` is one text, or its tokens")


def invalid_field(message: str) -> ApiError:
    """Return the error for a field with an invalid value."""
    return ApiError(400, "invalid_request", message, reason="a field has an invalid value")
