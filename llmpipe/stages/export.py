"""Export a model to GGUF files, and publish only files that llama.cpp reads as they were trained.

llama.cpp's own converter writes each file. It then has to pass the parity gate: golden chats and
texts must give the same text and the same token ids on both sides, or the stage fails with the
first difference. The ``parity`` output records the answers of both sides to a few prompts. The same
model gives the same bytes. Converting 135M parameters takes about 10 s on two cores, and the gate
half a minute. Not covered: K-quants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec

from llmpipe.backends.llama_cpp import converter
from llmpipe.contracts import (
    Artifact,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
    write_json,
)
from llmpipe.needs import Given, Need, packages

if TYPE_CHECKING:
    from llmpipe.backends.reasoning import Reply

PARITY = "parity"
PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about rivers.",
    "Count from one to five.",
    "What is 7 + 5?",
)


class ParityOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of the parity gate, which always compares token ids."""

    continuations: Annotated[int, msgspec.Meta(ge=0, le=len(PROMPTS))] = 2
    """The number of prompts that the model and each GGUF answer greedily, for the record; 0 for
    none. This loads the whole model into memory."""
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1, le=512)] = 24
    """Length of each recorded answer, in tokens."""
    require_end_of_turn: bool = True
    """Fail when the token that ends a turn in the chat template does not end generation."""


class ExportConfig(StageConfig, frozen=True, kw_only=True):
    """The model to export, and the types to write."""

    model: str
    """The model to export: a stage, a Hugging Face folder or a hub id.
    An adapter is merged first."""
    quantize: str | list[str]
    """The type of the weights, or several: ``f16``, ``bf16``, ``q8_0``. Each becomes an output of
    that name."""
    parity: ParityOptions = ParityOptions()
    """Options of the parity gate."""


class Export(StageDefaults):
    """Model → GGUF, one for each quantization, and the parity report."""

    Config = ExportConfig
    VERSION = 3
    determinism = "same-machine"  # the GGUF is byte-equal anywhere, the recorded answers are not
    reads_environment = True
    imports = ("torch", "transformers")

    @staticmethod
    def ports(config: ExportConfig) -> Ports:
        names = quantizations(config)
        outputs = {name: Output("gguf", origin="model") for name in names}
        return Ports(
            inputs={"model": Input(("model",), config.model, ("model",))},
            outputs={**outputs, PARITY: Output("metrics")},
            default=names[0] if len(names) == 1 else None,
        )

    @staticmethod
    def problems(config: ExportConfig) -> list[tuple[tuple[str | int, ...], str]]:
        known = ", ".join(converter.QUANTIZATIONS)
        named = config.quantize
        items = [named] if isinstance(named, str) else named
        if not items:
            return [(("quantize",), f"name at least one type: {known}")]
        places: list[tuple[str | int, ...]] = (
            [("quantize",)]
            if isinstance(named, str)
            else [("quantize", i) for i in range(len(items))]
        )
        found = []
        for place, name in zip(places, items, strict=True):
            if name not in converter.QUANTIZATIONS:
                found.append((place, f"{name!r} is not a type that can be written ({known} are)"))
        if len(set(items)) < len(items):
            found.append((("quantize",), "the same type appears twice"))
        return found

    @staticmethod
    def fingerprint(config: ExportConfig) -> Mapping[str, Any]:
        return {
            **semantic_fields(config),
            "quantize": sorted(quantizations(config)),  # their order changes nothing
            "converter": converter.identity(),
        }

    @staticmethod
    def tools(config: ExportConfig) -> tuple[str, ...]:
        return ("gguf", "tokenizers", "torch", "transformers", "xllamacpp")

    @staticmethod
    def needs(config: ExportConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        names = ("gguf", "tokenizers", "torch", "transformers", "xllamacpp")
        return (*packages(*names), converter.need())

    @staticmethod
    def run(ctx: StageContext[ExportConfig]) -> StageResult:
        from llmpipe.parity.gate import Reference

        program = converter.find(ctx.tools)
        model, names = ctx.input("model"), quantizations(ctx.config)
        steps = 2 * len(names) + 1
        outputs = {}
        for step, name in enumerate(names):
            ctx.progress(step, steps, f"converting to {name}")
            outputs[name] = ctx.out / f"{name}.gguf"
            converter.convert(
                model.path,
                outputs[name],
                cast(converter.Quantization, name),
                converter=program,
                work=ctx.work,
                threads=ctx.threads,
            )
        ctx.progress(len(names), steps, "reading the model")
        reference = Reference.load(model.path)
        expected = _answers(ctx, model, reference)
        reports = {}
        for step, (name, gguf) in enumerate(outputs.items(), len(names) + 1):
            ctx.progress(step, steps, f"comparing {name}")
            reports[name] = _gate(ctx, reference, gguf, expected)
        outputs[PARITY] = write_json(ctx.out / "parity.json", reports)
        ctx.progress(steps, steps)
        metrics = _metrics(reports, outputs)
        return StageResult(outputs, metrics, _summary(metrics, reports))


def quantizations(config: ExportConfig) -> list[str]:
    """Return the types to write, in the order of the config."""
    return [config.quantize] if isinstance(config.quantize, str) else list(config.quantize)


def _answers(
    ctx: StageContext[ExportConfig], model: Artifact, reference: Any
) -> list[tuple[str, Reply]]:
    """Have the Hugging Face model answer the prompts: (prompt, answer), none without a template."""
    from llmpipe.backends.huggingface.inference import greedy_answers, opened_model

    options = ctx.config.parity
    prompts = PROMPTS[: options.continuations] if reference.tokenizer.chat_template else ()
    if not prompts:
        return []
    with opened_model(model.path, threads=ctx.threads, label=model.label) as loaded:
        chats = [_question(prompt) for prompt in prompts]
        answers = greedy_answers(loaded, chats, options.max_new_tokens, len(chats))
    return list(zip(prompts, answers, strict=True))


def _gate(
    ctx: StageContext[ExportConfig],
    reference: Any,
    gguf: Path,
    expected: Sequence[tuple[str, Reply]],
) -> dict[str, Any]:
    """Serve one GGUF, compare it with the model, and return the report."""
    from llmpipe.backends.llama_cpp.serve import serve_gguf
    from llmpipe.parity.gate import continuations, verify

    options = ctx.config.parity
    with serve_gguf(gguf, threads=ctx.threads, log=ctx.work / "llama.cpp.log") as server:
        parity = verify(
            reference,
            gguf,
            server,
            label=gguf.name,
            require_end_of_turn=options.require_end_of_turn,
            warn=ctx.warn,
        )
        prompts = [prompt for prompt, _ in expected]
        actual = [server.chat(_question(p), max_tokens=options.max_new_tokens) for p in prompts]
    answers = [answer for _, answer in expected]
    return {
        **parity.as_json(),
        "continuations": continuations(prompts, answers, actual, reference.tokenizer),
    }


def _summary(metrics: Mapping[str, Any], reports: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{name} {metrics[name]['bytes'] / 1e6:.0f} MB" for name in reports)
    compared = f"{metrics['chats']} chats, {metrics['texts']} texts, {metrics['tokens']} tokens"
    return f"{sizes}; parity {metrics['parity']} over {compared}"


def _metrics(reports: Mapping[str, Any], outputs: Mapping[str, Path]) -> dict[str, Any]:
    """Return the metrics to show: what was compared, and the size and agreement of each file."""
    first: Mapping[str, Any] = next(iter(reports.values()))
    metrics = {name: first[name] for name in ("parity", "chats", "texts", "tokens")}
    for name, report in reports.items():
        rows = report["continuations"]
        metrics[name] = {"bytes": outputs[name].stat().st_size}
        if rows:
            agreeing, total = (sum(r[k] for r in rows) for k in ("agreeing_tokens", "tokens"))
            metrics[name]["agreeing_answer_tokens"] = f"{agreeing}/{total}"
    return metrics


def _question(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
