"""Check that a model can be served: start its engine, verify who answers, ask questions, stop it.

Inside ``llmpipe run``, this is an ordinary cached check. ``llmpipe serve`` serves the model, with
the settings for callers of the same stage (host, port, context, slots, threads, batch,
``cached_tokens``).

Reasoning is separated from the answers. The check does not judge them; the ``evaluate`` stage does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from llmpipe.backends.binding import port_need
from llmpipe.backends.llama_cpp.engines import ENGINES, EngineName
from llmpipe.contracts import (
    Endpoint,
    EstimateContext,
    Estimates,
    FieldPath,
    Input,
    Needs,
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
    from llmpipe.backends.llama_cpp.client import LlamaServer
    from llmpipe.backends.reasoning import Reply


AdapterName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]


class ServeConfig(ServedConfig, frozen=True, kw_only=True):
    """The model to serve, the address, and the questions of the check."""

    model: str
    """The model to serve: a GGUF, or with the engine transformers a folder of Hugging Face
    weights."""
    engine: EngineName = "xllamacpp"
    """The engine. xllamacpp serves a GGUF with llama.cpp. llama-cpp-python does too, and one
    compiles it for one's GPU. transformers serves a folder of Hugging Face weights as it is, on a
    GPU where there is one. The latter two compute one conversation at a time and call no tools."""
    compare: str | None = None
    """A second model of the same type, such as the base model. It answers beside the first one on
    the page, as the model ``STAGE.compare`` of the API, and in the check. It has the same settings
    and shares the slots."""
    adapters: dict[AdapterName, str] = {}
    """LoRA adapters of the model as GGUF files, by name. Callers choose one with each request, by
    its name as the ``model``. The check asks its questions with each adapter, too."""
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


class Serve(StageDefaults, Servable, Estimates):
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
        given = {
            "adapters": config.adapters,
            "slots": config.slots,
            "cached_tokens": config.cached_tokens,
            "batch": config.batch,
        }
        refused = ((name, engine.refusal(name, value)) for name, value in given.items())
        return [((name,), f"engine {engine.name}: {why}") for name, why in refused if why]

    @staticmethod
    def fingerprint(config: ServeConfig) -> Mapping[str, Any]:
        callers = ("slots", "threads", "batch", "cached_tokens")
        return semantic_fields(config, without=frozenset(callers))

    @staticmethod
    def tools(config: ServeConfig) -> tuple[str, ...]:
        return ENGINES[config.engine].packages

    @staticmethod
    def needs(config: ServeConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return (*packages(*ENGINES[config.engine].packages), port_need(config.host, config.port))

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
            adapters={
                name: ctx.inputs[f"adapters.{name}"].path
                for name in _adapters(ctx.config, ctx.stage)
            },
        )

    @staticmethod
    def estimate(config: ServeConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
        from llmpipe.stages.model_estimates import serve_estimate

        return serve_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[ServeConfig]) -> StageResult:
        adapters = _adapters(ctx.config, ctx.stage)
        found = _answers(ctx, "model", adapters)
        metrics: dict[str, Any] = {"answers": found[""]}
        if adapters:
            metrics["adapters"] = {name: found[name] for name in adapters}
        if ctx.config.compare is not None:
            compared = _answers(ctx, "compare")[""]
            metrics["compare"] = found["the second model"] = compared
        check = write_json(ctx.out / "check.json", metrics)
        return StageResult({"check": check}, metrics, _summary(found))


def _inputs(config: ServeConfig) -> dict[str, Input]:
    """Return the inputs: the model, and the one that it is compared with."""
    served = (ENGINES[config.engine].serves,)
    inputs = {"model": Input(("model",), config.model, served)}
    if config.compare is not None:
        inputs["compare"] = Input(("compare",), config.compare, served)
    for name, adapter in config.adapters.items():
        inputs[f"adapters.{name}"] = Input(
            ("adapters", name), adapter, ("gguf_adapter",), adapts="model"
        )
    return inputs


def _adapters(config: ServeConfig, stage: str) -> tuple[str, ...]:
    """Return the names of the adapters.

    Raises:
        StageError: One has the name of the stage, which is the model without an adapter.
    """
    if stage in config.adapters:
        raise StageError(
            f"the adapter {stage} has the name of the stage", hint=f"rename it in {stage}.adapters"
        )
    return tuple(config.adapters)


def _answers(
    ctx: StageContext[ServeConfig], name: str, adapters: Sequence[str] = ()
) -> dict[str, list[dict[str, str]]]:
    """Serve one of the models, and return its answers to the sample questions.

    They are by adapter; those without an adapter have an empty name.
    """
    from llmpipe.backends.llama_cpp.serve import require_context, serve_gguf

    config, model = ctx.config, ctx.input(name)
    found: dict[str, list[dict[str, str]]] = {}
    with serve_gguf(
        model.path,
        threads=ctx.threads,
        context=config.context,
        slots=config.slots,
        alias=ctx.stage,
        engine=config.engine,
        adapters=[ctx.input(f"adapters.{adapter}").path for adapter in adapters],
    ) as server:
        require_context(server, config.context, model.label, f"{ctx.stage}.context")
        for number, adapter in enumerate(("", *adapters)):
            label = f"{model.label} with {adapter}" if adapter else model.label
            found[adapter] = _asked(ctx, server, label, number - 1 if adapter else None)
    return found


def _asked(
    ctx: StageContext[ServeConfig], server: LlamaServer, label: str, adapter: int | None
) -> list[dict[str, str]]:
    """Ask a model the sample questions."""
    config, answers = ctx.config, []
    system = [{"role": "system", "content": config.system}] if config.system else []
    for done, question in enumerate(config.sample):
        ctx.progress(done, len(config.sample), "questions")
        messages = [*system, {"role": "user", "content": question}]
        reply = server.chat(messages, max_tokens=config.max_tokens, adapter=adapter)
        answers.append(_answer(question, reply))
    _require_speech(label, answers)
    _warn_of_reasoning(ctx, answers)
    return answers


def _summary(found: Mapping[str, list[dict[str, str]]]) -> str:
    """Return the questions with the answers of all models, by name where there are several."""
    lines = []
    for at, answer in enumerate(found[""]):
        lines.append(f"Q: {answer['question']}")
        lines += [
            f"A of {name}: {answers[at]['answer']}" if name else f"A: {answers[at]['answer']}"
            for name, answers in found.items()
        ]
    return "\n".join(lines)


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
