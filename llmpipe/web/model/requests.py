"""Requests to a served model: the fields that llama.cpp supports, typed and bounded.

llama.cpp answers with status 200 even if it does not know or support a field. It clips numbers that
are out of range, and of several names for one setting it uses the first. This module refuses such
requests, so every accepted field has its effect. A null field counts as absent, and so does one
that asks for the default (``n: 1``, ``tools: []``).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from llmpipe.web.errors import ApiError, unsupported
from llmpipe.web.model.checks import (
    Served,
    require_format,
    require_known_biases,
    require_one_prompt,
    require_template_knows,
)
from llmpipe.web.model.conversation import ChatMessage, require_conversation
from llmpipe.web.model.fields import (
    AMOUNT,
    COUNT,
    SHARE,
    TEXT,
    TOKENS,
    Checked,
    Fields,
    Request,
)
from llmpipe.web.model.llguidance import for_llguidance
from llmpipe.web.model.sampling import require_used
from llmpipe.web.model.schemas import require_enforced
from llmpipe.web.model.tools import CHOICE, NamedTool, Tool, require_choice, supported_tools
from llmpipe.web.request_fields import requested_fields
from llmpipe.web.request_parsing import converted

LARGEST_SEED = 2**32 - 1
TOP = Annotated[int, Meta(ge=-1)]
"""The number of tokens to sample from; llama.cpp reads -1 as 0, which is all tokens."""
SAMPLER = Literal[
    "dry", "min_p", "penalties", "temperature", "top_k", "top_n_sigma", "top_p", "typ_p", "xtc"
]


class StreamOptions(Fields, frozen=True, kw_only=True):
    """What a stream contains besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None

    def check(self, *, stream: bool) -> None:
        """Require that the options have an effect.

        Raises:
            ApiError: An option is unsupported, or needs a stream.
        """
        if self.include_obfuscation:
            raise unsupported("`stream_options.include_obfuscation: true`")
        if self.include_usage and not stream:
            raise unsupported("`stream_options.include_usage` without `stream: true`")


class Adapter(Fields, frozen=True, kw_only=True):
    """A LoRA adapter by its number, and how strongly it is applied."""

    id: COUNT
    scale: float


class Generation(Request, frozen=True, kw_only=True):
    """The fields of every request for a text: sampling, length and output."""

    model: str | None = None
    lora: list[Adapter] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: TOKENS | None = None
    max_completion_tokens: TOKENS | None = None
    n_predict: TOKENS | None = None
    stop: TEXT | list[TEXT] | None = None
    seed: Annotated[int, Meta(ge=-1, le=LARGEST_SEED)] | None = None
    temperature: AMOUNT | None = None
    top_k: TOP | None = None
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
        """See `Request.check`."""
        served.require_name(self.model)
        for adapter in self.lora or ():
            served.require_adapter(adapter.id)
        self._require_one_length()
        if self.stream_options is not None:
            self.stream_options.check(stream=bool(self.stream))
        if self.return_progress and not self.stream:
            raise unsupported("`return_progress` without `stream: true`")
        if self.return_progress and not served.tells_cached:
            told = (
                "`return_progress`, which shows what is cached: `cached_tokens` of the stage is off"
            )
            raise unsupported(told)
        require_used(self)
        require_known_biases(self.logit_bias, served)
        if self.json_schema is not None:
            if self.grammar is not None:
                raise ApiError(400, "unsupported", "`grammar` and `json_schema` exclude each other")
            require_enforced(self.json_schema, "json_schema")
            self._require_end("`json_schema`")

    def _require_end(self, beside: str) -> None:
        """Require that an answer may end: llama.cpp fails where it must go on after the JSON."""
        if self.ignore_eos:
            raise unsupported(f"`ignore_eos: true` beside {beside}, after which an answer must end")

    def _require_one_length(self) -> None:
        limits = {self.max_tokens, self.max_completion_tokens, self.n_predict} - {None}
        if 0 in limits:
            raise unsupported("`max_tokens: 0`; llama.cpp writes at least 1 token")
        if len(limits) > 1:
            message = "`max_tokens`, `max_completion_tokens` and `n_predict` differ; send one"
            raise ApiError(400, "unsupported", message)


class ChatRequest(Generation, frozen=True, kw_only=True):
    """A chat completion, or a conversation to render as a prompt."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    tools: list[Tool] | None = None
    tool_choice: CHOICE | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    reasoning_format: Literal["none", "auto", "deepseek", "deepseek-legacy"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    def check(self, served: Served) -> None:
        """See `Request.check`."""
        Generation.check(self, served)
        require_conversation(self.messages, served, "messages")
        require_format(self.response_format)
        shapes = self._shapes()
        if len(shapes) > 1:
            told = "`grammar`, `json_schema` and `response_format` exclude one another"
            raise ApiError(400, "unsupported", told)
        require_choice(self, served, shaped=bool(shapes))
        if self.response_format is not None and self.response_format.get("type") != "text":
            self._require_end("`response_format`")
        if self.tools and self.tool_choice != "none":
            self._require_end("`tools`")
        if self.reasoning_effort is not None:
            require_template_knows("reasoning_effort", served)
        for name in self.chat_template_kwargs or {}:
            require_template_knows(name, served)
        if self.logprobs and self.top_logprobs == 0:
            raise unsupported("`top_logprobs: 0`; llama.cpp then gives no `logprobs` at all")
        if self.top_logprobs and not self.logprobs:
            raise unsupported("`top_logprobs` without `logprobs: true`")

    def upstream_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """See `Request.upstream_fields`."""
        messages = [_with_content(message) for message in fields["messages"]]
        worded = supported_tools(self, fields | {"messages": messages})
        if self.top_logprobs == 0:
            del worded["top_logprobs"]
        return worded

    def _shapes(self) -> list[Any]:
        """Return the grammars and schemas that shape the answer."""
        shapes = [self.grammar, self.json_schema]
        if self.response_format is not None and self.response_format.get("type") != "text":
            shapes.append(self.response_format)
        return [shape for shape in shapes if shape is not None]


def _with_content(message: dict[str, Any]) -> dict[str, Any]:
    """Add an empty content to a message without content and calls, as llama.cpp requires."""
    return (
        message if "content" in message or "tool_calls" in message else {**message, "content": ""}
    )


class CompletionRequest(Generation, frozen=True, kw_only=True):
    """A completion in OpenAI's older format."""

    prompt: str | list[Any]
    logprobs: Annotated[int, Meta(ge=1)] | None = None

    def check(self, served: Served) -> None:
        """See `Request.check`."""
        Generation.check(self, served)
        served.require_tokens(self.logprobs, "logprobs")
        require_one_prompt(self.prompt)

    def upstream_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """See `Request.upstream_fields`."""
        return _for_llguidance(fields)


class NativeRequest(Generation, frozen=True, kw_only=True):
    """A completion in llama.cpp's own format."""

    prompt: str | list[Any]
    n_probs: COUNT | None = None
    post_sampling_probs: bool | None = None
    return_tokens: bool | None = None

    def check(self, served: Served) -> None:
        """See `Request.check`."""
        Generation.check(self, served)
        served.require_tokens(self.n_probs, "n_probs")
        require_one_prompt(self.prompt)
        if self.post_sampling_probs and not self.n_probs:
            raise unsupported("`post_sampling_probs` without `n_probs`")

    def upstream_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """See `Request.upstream_fields`."""
        return _for_llguidance(fields)


def _for_llguidance(fields: dict[str, Any]) -> dict[str, Any]:
    if "json_schema" not in fields:
        return fields
    return fields | {"json_schema": for_llguidance(fields["json_schema"])}


class TokenizeRequest(Request, frozen=True, kw_only=True):
    """A text to tokenize."""

    content: str
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeRequest(Request, frozen=True, kw_only=True):
    """Tokens to convert to text."""

    tokens: list[Annotated[int, Meta(ge=0)]]

    def check(self, served: Served) -> None:
        """See `Request.check`."""
        for token in self.tokens:
            served.require_token(token)


def read_request(data: Any, kind: type[Checked], served: Served) -> dict[str, Any]:
    """Read and check a request, and return the fields to send to llama.cpp.

    Raises:
        ApiError: The request is invalid, or asks for something unsupported.
    """
    known = set(kind.__struct_fields__)
    fields = requested_fields(data, known) if isinstance(data, dict) else data
    request = converted(fields, kind)
    request.check(served)
    return request.upstream_fields(fields)
