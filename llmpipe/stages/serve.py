"""Check that a GGUF can be served: start llama.cpp, verify who answers, ask questions, stop it.

Inside ``llmpipe run``, this is an ordinary cached check. ``llmpipe serve`` serves the model, with
the settings for callers of the same stage (host, port, context, slots, threads, batch,
``cached_tokens``).

Reasoning is separated from the answers. The check does not judge them; the ``evaluate`` stage does.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from llmpipe.backends.binding import port_need
from llmpipe.backends.llama_cpp.engines import ENGINES, EngineName
from llmpipe.contracts import (
    Endpoint,
    FieldPath,
    Input,
    Output,
    Ports,
    Servable,
    ServeContext,
    ServedConfig,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
    write_json,
)
from llmpipe.errors import StageError
from llmpipe.needs import SERVING, Given, Need, packages

if TYPE_CHECKING:
    from llmpipe.backends.reasoning import Reply


class ServeConfig(ServedConfig, frozen=True, kw_only=True):
    """The model to serve, the address, and the questions of the check."""

    model: str
    """The GGUF to serve."""
    engine: EngineName = "xllamacpp"
    """The engine: xllamacpp, or llama-cpp-python, which one compiles for one's GPU. The latter
    computes one conversation at a time and calls no tools."""
    compare: str | None = None
    """A second GGUF, such as that of the base model. It answers beside the first one on the page,
    as the model ``STAGE.compare`` of the API, and in the check. It has the same settings and shares
    the slots."""
    context: Annotated[int, Meta(ge=16)] = 2048
    """Maximum tokens of one conversation, question and answer together."""
    slots: Annotated[int, Meta(ge=1, le=256)] = 1
    """Conversations that are answered at the same time; each takes the memory of one context."""
    threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    """CPU threads of ``llmpipe serve``; by default, one for each core. Waiting threads leave the
    cores to other processes."""
    batch: Annotated[int, Meta(ge=1, le=65536)] | None = None
    """Tokens of a prompt that ``llmpipe serve`` computes in one step. Meanwhile, other answers
    pause, and a disconnect is not noticed. By default, as many as this machine computes in a
    quarter of a second, measured at the start."""
    cached_tokens: bool = False
    """Whether ``llmpipe serve`` reports to callers how much of their prompts was in the cache. This
    reveals to a caller how the prompts of other callers begin."""
    system: str = ""
    """System message for the sample questions. Callers send their own."""
    sample: Annotated[tuple[str, ...], Meta(min_length=1)] = ("Hello, who are you?",)
    """Questions that the check asks, decoded greedily."""
    max_tokens: Annotated[int, Meta(ge=1)] = 128
    """Maximum tokens of a reply to a sample question, including reasoning."""


class Serve(StageDefaults, Servable):
    """Start the server once, ask the sample questions, keep the answers."""

    Config = ServeConfig
    VERSION = 2
    determinism = "same-machine"
    SERVE_NEEDS = SERVING

    @staticmethod
    def ports(config: ServeConfig) -> Ports:
        return Ports(
            inputs=_inputs(config),
            outputs={"check": Output("metrics")},
            default="check",
        )

    @staticmethod
    def problems(config: ServeConfig) -> list[tuple[FieldPath, str]]:
        engine = ENGINES[config.engine]
        given = {"slots": config.slots, "cached_tokens": config.cached_tokens}
        refused = ((name, engine.refusal(name, value)) for name, value in given.items())
        return [((name,), f"engine {engine.name}: {why}") for name, why in refused if why]

    @staticmethod
    def fingerprint(config: ServeConfig) -> Mapping[str, Any]:
        callers = ("slots", "threads", "batch", "cached_tokens")
        return semantic_fields(config, without=frozenset(callers))

    @staticmethod
    def tools(config: ServeConfig) -> tuple[str, ...]:
        return (config.engine,)

    @staticmethod
    def needs(config: ServeConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return (*packages(config.engine), port_need(config.host, config.port))

    @staticmethod
    def serve(ctx: ServeContext[ServeConfig]) -> AbstractContextManager[Endpoint]:
        from llmpipe.web.server import serve_model

        return serve_model(
            ctx.inputs["model"].path,
            ctx.stage,
            host=ctx.host,
            port=ctx.port,
            context=ctx.config.context,
            slots=ctx.config.slots,
            threads=ctx.config.threads or ctx.threads,
            batch=ctx.config.batch,
            api_key=ctx.api_key,
            tells_cached=ctx.config.cached_tokens,
            compare=ctx.inputs["compare"].path if ctx.config.compare else None,
            engine=ctx.config.engine,
        )

    @staticmethod
    def run(ctx: StageContext[ServeConfig]) -> StageResult:
        found = {name: _answers(ctx, name) for name in _inputs(ctx.config)}
        answers = found["model"]
        metrics: dict[str, Any] = {"answers": answers}
        if "compare" in found:
            metrics["compare"] = found["compare"]
        check = write_json(ctx.out / "check.json", metrics)
        return StageResult({"check": check}, metrics, _summary(answers, found.get("compare")))


def _inputs(config: ServeConfig) -> dict[str, Input]:
    """Return the inputs: the model, and the one that it is compared with."""
    inputs = {"model": Input(("model",), config.model, ("gguf",))}
    if config.compare is not None:
        inputs["compare"] = Input(("compare",), config.compare, ("gguf",))
    return inputs


def _answers(ctx: StageContext[ServeConfig], name: str) -> list[dict[str, str]]:
    """Serve one of the models, and return its answers to the sample questions."""
    from llmpipe.backends.llama_cpp.serve import require_context, serve_gguf

    config, model = ctx.config, ctx.input(name)
    system = [{"role": "system", "content": config.system}] if config.system else []
    answers = []
    with serve_gguf(
        model.path,
        threads=ctx.threads,
        context=config.context,
        slots=config.slots,
        alias=ctx.stage,
        engine=config.engine,
    ) as server:
        require_context(server, config.context, model.label, f"{ctx.stage}.context")
        for done, question in enumerate(config.sample):
            ctx.progress(done, len(config.sample), "questions")
            messages = [*system, {"role": "user", "content": question}]
            answers.append(_answer(question, server.chat(messages, max_tokens=config.max_tokens)))
    _require_speech(model.label, answers)
    _warn_of_reasoning(ctx, answers)
    return answers


def _summary(answers: list[dict[str, str]], compared: list[dict[str, str]] | None) -> str:
    if compared is None:
        return "\n".join(f"Q: {a['question']}\nA: {a['answer']}" for a in answers)
    pairs = zip(answers, compared, strict=True)
    return "\n".join(
        f"Q: {a['question']}\nA: {a['answer']}\nA of compare: {b['answer']}" for a, b in pairs
    )


def _answer(question: str, reply: Reply) -> dict[str, str]:
    reasoning = {"reasoning": reply.reasoning} if reply.reasoning else {}
    return {"question": question, "answer": reply.answer, **reasoning}


def _require_speech(label: str, answers: list[dict[str, str]]) -> None:
    if not any(answer["answer"] or answer.get("reasoning") for answer in answers):
        raise StageError(
            f"{label} gives empty answers to all sample questions",
            hint="a wrong tokenizer or chat template can cause this: check the stage that made it",
        )


def _warn_of_reasoning(ctx: StageContext[ServeConfig], answers: list[dict[str, str]]) -> None:
    """Warn of questions on which the model reasons without reaching an answer."""
    silent = sum(not answer["answer"] and "reasoning" in answer for answer in answers)
    if silent:
        ctx.warn(
            f"{silent} of {len(answers)} sample questions have no answer: the reply ends inside "
            "the model's reasoning (raise max_tokens where it is cut)"
        )
