"""What callers may ask of a served model: the fields that llama.cpp heeds, typed and bounded.

llama.cpp passes fields over that it does not know, or that cannot be had, and answers with status
200; numbers out of range it moves into it, and of a field that is given twice it takes the first.
Here every such request is refused, so that what is let through has its effect. A field that is null
counts as left out, and so does one of OpenAI's that asks for what happens anyway (``n: 1``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Protocol

import msgspec
from msgspec import Meta

from llmpipe.web.errors import ApiError, unsupported
from llmpipe.web.model.checks import (
    Served,
    require_format,
    require_known_biases,
    require_one_prompt,
    require_parameters,
    require_template_knows,
    require_text_parts,
    require_tools,
)
from llmpipe.web.model.schemas import require_heeded
from llmpipe.web.model.wording import as_llguidance_reads
from llmpipe.web.reading import converted

NO_EFFECT = frozenset(
    ("metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "user")
)
"""Fields of OpenAI's that change no answer anywhere: they are taken, and dropped."""
REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": (),
    "background": (False,),
    "best_of": (1,),
    "conversation": (),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "include": ([],),
    "lora": ([],),
    "max_tool_calls": (),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "previous_response_id": ("",),
    "prompt": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "suffix": ("",),
    "truncation": ("disabled",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Fields of OpenAI's, and of llama.cpp's, that cannot be had here, with the values that ask for
nothing."""

LARGEST_SEED = 2**32 - 1
COUNT = Annotated[int, Meta(ge=0)]
SHARE = Annotated[float, Meta(ge=0, le=1)]
AMOUNT = Annotated[float, Meta(ge=0)]
TEXT = Annotated[str, Meta(min_length=1)]
TOKENS = Annotated[int, Meta(ge=-1)]
"""Tokens that may be written; -1 is as many as the context has room for."""
SAMPLER = Literal[
    "dry", "min_p", "penalties", "temperature", "top_k", "top_n_sigma", "top_p", "typ_p", "xtc"
]


class _Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that are heeded, by their names; others are refused."""


class StreamOptions(_Fields, frozen=True):
    """What a stream holds besides the answer."""

    include_usage: bool | None = None


class Generation(_Fields, frozen=True, kw_only=True):
    """What every request for a text may say: how it is drawn, how far, and how it is told."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TOKENS | None = None
    max_completion_tokens: TOKENS | None = None
    n_predict: TOKENS | None = None
    stop: TEXT | list[TEXT] | None = None
    seed: Annotated[int, Meta(ge=-1, le=LARGEST_SEED)] | None = None
    temperature: AMOUNT | None = None
    top_k: COUNT | None = None
    top_p: SHARE | None = None
    min_p: SHARE | None = None
    typical_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_n_sigma: float | None = None
    xtc_probability: SHARE | None = None
    xtc_threshold: SHARE | None = None
    dynatemp_range: AMOUNT | None = None
    dynatemp_exponent: AMOUNT | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repeat_penalty: Annotated[float, Meta(gt=0)] | None = None
    repeat_last_n: COUNT | None = None
    dry_multiplier: AMOUNT | None = None
    dry_base: Annotated[float, Meta(ge=1)] | None = None
    dry_allowed_length: COUNT | None = None
    dry_penalty_last_n: COUNT | None = None
    dry_sequence_breakers: Annotated[list[str], Meta(min_length=1)] | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: AMOUNT | None = None
    mirostat_eta: AMOUNT | None = None
    min_keep: COUNT | None = None
    samplers: Annotated[list[SAMPLER], Meta(min_length=1)] | None = None
    logit_bias: dict[str, Any] | list[Any] | None = None
    ignore_eos: bool | None = None
    grammar: TEXT | None = None
    json_schema: dict[str, Any] | None = None
    cache_prompt: bool | None = None
    return_progress: bool | None = None
    timings_per_token: bool | None = None

    def check(self, served: Served) -> None:
        """Make sure that all that is asked for can be had of this model.

        Raises:
            ApiError: something cannot, or has no effect as it is asked for.
        """
        served.require_name(self.model)
        self._require_one_length()
        if not self.stream and (self.stream_options or self.return_progress):
            raise ApiError(
                400, "unsupported", "`stream_options` and `return_progress` are for a `stream`"
            )
        require_known_biases(self.logit_bias, served)
        if self.json_schema is not None:
            if self.grammar is not None:
                raise ApiError(400, "unsupported", "`grammar` and `json_schema` exclude each other")
            require_heeded(self.json_schema, "json_schema")

    def _require_one_length(self) -> None:
        limits = {self.max_tokens, self.max_completion_tokens, self.n_predict} - {None}
        if 0 in limits:
            raise unsupported("`max_tokens: 0`; llama.cpp writes at least 1 token")
        if len(limits) > 1:
            message = "`max_tokens`, `max_completion_tokens` and `n_predict` differ; send one"
            raise ApiError(400, "unsupported", message)


class ChatMessage(_Fields, frozen=True, kw_only=True):
    """A message of a conversation, as templates read it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = None
    """OpenAI's clients send back the empty fields of an answer; these are for none but them."""

    def check(self, served: Served) -> None:
        """Make sure that the template reads all of the message.

        Raises:
            ApiError: it would pass a part of it over.
        """
        if self.role == "tool" or self.tool_calls:
            require_tools(served)
        elif self.name is not None:
            raise unsupported("the `name` of who speaks; write it into the `content`")
        if isinstance(self.content, list):
            require_text_parts(self.content, ("text",))
        if self.annotations:
            raise unsupported("`annotations` in a message")
        if self.reasoning_content:
            require_template_knows("reasoning_content", served)


class Function(_Fields, frozen=True, kw_only=True):
    """A function that the model may call."""

    name: TEXT
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def check(self, place: str) -> None:
        """Make sure that a call can be held to the parameters: all of them where it is strict.

        Raises:
            ApiError: it cannot.
        """
        require_parameters(self.parameters, strict=bool(self.strict), place=f"{place}.function")


class Tool(_Fields, frozen=True, kw_only=True):
    """A tool of a chat."""

    type: Literal["function"]
    function: Function


class ChatRequest(Generation, frozen=True, kw_only=True):
    """A chat completion, or the conversation of which only the prompt is wanted."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=1, le=20)] | None = None
    reasoning_effort: str | None = None
    reasoning_format: Literal["none", "auto", "deepseek", "deepseek-legacy"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    def check(self, served: Served) -> None:
        """See `Generation.check`."""
        Generation.check(self, served)
        for message in self.messages:
            message.check(served)
        self._check_template(served)
        require_format(self.response_format)
        if self.top_logprobs is not None and not self.logprobs:
            raise unsupported("`top_logprobs` without `logprobs: true`")
        shapes = (self.grammar, self.json_schema, self.response_format)
        if sum(shape is not None for shape in shapes) > 1:
            told = "`grammar`, `json_schema` and `response_format` exclude one another"
            raise ApiError(400, "unsupported", told)

    def _check_template(self, served: Served) -> None:
        if self.tools:
            require_tools(served, parallel=bool(self.parallel_tool_calls))
            for number, tool in enumerate(self.tools):
                tool.function.check(f"tools[{number}]")
        elif self.tool_choice or self.parallel_tool_calls is not None:
            raise unsupported("`tool_choice` or `parallel_tool_calls` without `tools`")
        if self.reasoning_effort is not None:
            require_template_knows("reasoning_effort", served)
        for name in self.chat_template_kwargs or {}:
            require_template_knows(name, served)


class CompletionRequest(Generation, frozen=True, kw_only=True):
    """A completion of OpenAI's older kind."""

    prompt: str | list[Any]
    logprobs: Annotated[int, Meta(ge=1)] | None = None

    def check(self, served: Served) -> None:
        """See `Generation.check`."""
        Generation.check(self, served)
        require_one_prompt(self.prompt)


class NativeRequest(Generation, frozen=True, kw_only=True):
    """A completion as llama.cpp words it."""

    prompt: str | list[Any]
    n_probs: COUNT | None = None
    post_sampling_probs: bool | None = None
    return_tokens: bool | None = None

    def check(self, served: Served) -> None:
        """See `Generation.check`."""
        Generation.check(self, served)
        require_one_prompt(self.prompt)
        if self.post_sampling_probs and not self.n_probs:
            raise unsupported("`post_sampling_probs` without `n_probs`")


class TokenizeRequest(_Fields, frozen=True, kw_only=True):
    """A text of which the tokens are wanted."""

    content: str
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None

    def check(self, served: Served) -> None:
        """See `Generation.check`."""


class DetokenizeRequest(_Fields, frozen=True, kw_only=True):
    """Tokens of which the text is wanted."""

    tokens: list[Annotated[int, Meta(ge=0)]]

    def check(self, served: Served) -> None:
        """See `Generation.check`."""
        for token in self.tokens:
            served.require_token(token)


class Checked(Protocol):
    """A request that can be held against the model that is to answer it."""

    __struct_fields__: ClassVar[tuple[str, ...]]

    def check(self, served: Served) -> None:
        """See `Generation.check`."""


def read_request(data: Any, kind: type[Checked], served: Served) -> dict[str, Any]:
    """Read a request, and return the fields that llama.cpp is to be sent.

    Raises:
        ApiError: it is not what the route takes, or asks for what cannot be had.
    """
    known = set(kind.__struct_fields__)
    fields = _asked(data, known) if isinstance(data, dict) else data
    converted(fields, kind).check(served)
    if kind in (CompletionRequest, NativeRequest) and "json_schema" in fields:
        fields["json_schema"] = as_llguidance_reads(fields["json_schema"])
    return fields


def _asked(data: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """Leave out the fields that ask for nothing, and refuse those that cannot be had."""
    fields = {}
    for name, value in data.items():
        if value is None or (name in NO_EFFECT and name not in known):
            continue
        if name in REFUSED and name not in known:
            if value not in REFUSED[name]:
                raise unsupported(f"`{name}`" + _but(REFUSED[name]))
            continue
        fields[name] = value
    return fields


def _but(harmless: tuple[Any, ...]) -> str:
    return f" other than {' or '.join(json.dumps(each) for each in harmless)}" if harmless else ""
