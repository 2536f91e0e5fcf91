"""Export a model to GGUF files, and publish only files that llama.cpp reads as they were trained.

llama.cpp's own converter reads the model, and ggml's kernels quantize it, each tensor to the type
that ``llama-quantize`` chooses. Each file then passes the parity gate: the golden chats and texts
must give the same text and the same token ids on both sides, or the stage fails with the first
difference. The answers of both sides to a few prompts are recorded in the ``parity`` output, with
the bits per weight of each file and the tensors that are too narrow for its type. The same model
gives the same bytes. For 135M parameters on two cores, a conversion takes about 10 s, each
quantization 2 s, and the gate half a minute. Where the weights are not 16-bit, the types other than
f16, bf16 and a lone q8_0 need 4 bytes per weight in the work folder for a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from llmpipe.backends.llama_cpp import converter
from llmpipe.backends.llama_cpp.mixtures import NEED_IMPORTANCE, TYPES
from llmpipe.contracts import (
    Artifact,
    ArtifactType,
    EstimateContext,
    Estimates,
    Input,
    Needs,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
    write_json,
)
from llmpipe.errors import did_you_mean
from llmpipe.needs import Given, Need, packages

if TYPE_CHECKING:
    from llmpipe.backends.llama_cpp.quantize import Written
    from llmpipe.backends.reasoning import Reply

PARITY, IMPORTANCE = "parity", "importance"
IMPORTANCE_FILE = "importance.gguf"
UNCALIBRATED = ("f16", "bf16", "q8_0")
"""The types on which an importance matrix has no effect."""
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
    """The type of the weights, or several, such as ``f16``, ``q8_0``, ``q5_k_m``, ``q4_k_m``.
    Each becomes an output of that name."""
    calibration: str | None = None
    """Rows from which an importance matrix is computed; the weights that matter for them are then
    rounded more exactly. Use training rows, never held-out ones. The types `iq3_xs`, `iq3_xxs`,
    `iq2_*`, `iq1_*` and `q2_k_s` need it."""
    calibration_rows: Annotated[int, msgspec.Meta(ge=1)] = 128
    """How many of these rows the model reads, drawn by their content."""
    parity: ParityOptions = ParityOptions()
    """Options of the parity gate."""


class Export(StageDefaults, Estimates):
    """Model → GGUF, one for each quantization, and the parity report."""

    Config = ExportConfig
    VERSION = 5
    determinism = "same-machine"  # the GGUF is byte-equal anywhere, the recorded answers are not
    reads_environment = True
    imports = ("torch", "transformers")

    @staticmethod
    def ports(config: ExportConfig) -> Ports:
        names = quantizations(config)
        inputs = {"model": Input(("model",), config.model, ("model",))}
        outputs = {name: Output("gguf", origin="model") for name in names}
        if config.calibration is not None:
            accepts: tuple[ArtifactType, ...] = ("dataset", "records")
            rows = Input(("calibration",), config.calibration, accepts, allow_held_out=False)
            inputs["calibration"] = rows
            outputs[IMPORTANCE] = Output("file")
        return Ports(
            inputs=inputs,
            outputs={**outputs, PARITY: Output("metrics")},
            default=names[0] if len(names) == 1 else None,
        )

    @staticmethod
    def problems(config: ExportConfig) -> list[tuple[tuple[str | int, ...], str]]:
        named = config.quantize
        items = [named] if isinstance(named, str) else named
        if not items:
            return [(("quantize",), f"name at least one type: {', '.join(TYPES)}")]
        places: list[tuple[str | int, ...]] = (
            [("quantize",)]
            if isinstance(named, str)
            else [("quantize", i) for i in range(len(items))]
        )
        found = [
            (place, problem)
            for place, name in zip(places, items, strict=True)
            if (problem := _type_problem(name, config.calibration is not None))
        ]
        if config.calibration and set(items) <= set(UNCALIBRATED):
            found.append((("calibration",), f"has no effect on {', '.join(items)}"))
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
    def estimate(
        config: ExportConfig, inputs: Mapping[str, Given], asked: EstimateContext
    ) -> Needs:
        from llmpipe.stages.model_estimates import export_estimate

        return export_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[ExportConfig]) -> StageResult:
        from llmpipe.parity.gate import Reference

        names = quantizations(ctx.config)
        steps = 2 * len(names) + 1
        outputs = {name: ctx.out / f"{name}.gguf" for name in names}
        written = _write(ctx, names, steps)
        if ctx.config.calibration:
            outputs[IMPORTANCE] = ctx.out / IMPORTANCE_FILE
        model = ctx.input("model")
        ctx.progress(len(names), steps, "reading the model")
        reference = Reference.load(model.path)
        expected = _answers(ctx, model, reference)
        reports = {}
        for step, name in enumerate(names, len(names) + 1):
            ctx.progress(step, steps, f"comparing {name}")
            gate = _gate(ctx, reference, outputs[name], expected)
            reports[name] = {**gate, "quantization": written[name].as_json()}
        outputs[PARITY] = write_json(ctx.out / "parity.json", reports)
        ctx.progress(steps, steps)
        metrics = _metrics(reports, outputs)
        return StageResult(outputs, metrics, _summary(metrics, reports))


def quantizations(config: ExportConfig) -> list[str]:
    """Return the types to write, in the order of the config."""
    return [config.quantize] if isinstance(config.quantize, str) else list(config.quantize)


def _type_problem(name: str, calibrated: bool) -> str | None:
    """Return what is wrong with the name of a type, or None."""
    if name in NEED_IMPORTANCE and not calibrated:
        return (
            f"{name!r} needs an importance matrix, without which its weights are noise: name the "
            "training rows in `calibration`"
        )
    if name in TYPES:
        return None
    hint = did_you_mean(name.lower(), TYPES)
    return f"{name!r} is not a type that can be written ({', '.join(TYPES)} are)" + (
        f"; {hint}" if hint else ""
    )


def _calibrated(ctx: StageContext[ExportConfig], source: Path) -> Mapping[str, Any]:
    """Have the model read the calibration rows; write and return the importance matrix."""
    from llmpipe.backends.llama_cpp.importance import read_importance
    from llmpipe.stages.export_calibration import calibrate

    model, rows, target = ctx.input("model"), ctx.input("calibration"), ctx.out / IMPORTANCE_FILE
    count = ctx.config.calibration_rows
    calibrate(model, rows, count, source, target, threads=ctx.threads, warn=ctx.warn)
    return read_importance(target)


def _write(ctx: StageContext[ExportConfig], names: list[str], steps: int) -> dict[str, Written]:
    """Write every file, and warn of the tensors that are too narrow for a type."""
    from llmpipe.backends.llama_cpp.quantize import described
    from llmpipe.stages.export_files import write_files

    program, model = converter.find(ctx.tools), ctx.input("model").path
    started: list[str] = []

    convert = partial(
        converter.convert, model, converter=program, work=ctx.work, threads=ctx.threads
    )

    def on_file(name: str) -> None:
        if name not in started:
            started.append(name)
        ctx.progress(len(started) - 1, steps, f"writing {name}")

    written = write_files(
        model,
        names,
        ctx.out,
        ctx.work,
        convert=convert,
        threads=ctx.threads,
        calibrate=partial(_calibrated, ctx) if ctx.config.calibration else None,
        on_file=on_file,
    )
    for name in names:
        for sentence in described(name, written[name]):
            ctx.warn(sentence)
    return written


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
    sizes = ", ".join(
        "{} {:.0f} MB ({:.2f} bits)".format(
            name, metrics[name]["bytes"] / 1e6, metrics[name]["bits_per_weight"]
        )
        for name in reports
    )
    compared = f"{metrics['chats']} chats, {metrics['texts']} texts, {metrics['tokens']} tokens"
    return f"{sizes}; parity {metrics['parity']} over {compared}"


def _metrics(reports: Mapping[str, Any], outputs: Mapping[str, Path]) -> dict[str, Any]:
    """Return the metrics to show: what was compared, and the size and agreement of each file."""
    first: Mapping[str, Any] = next(iter(reports.values()))
    metrics = {name: first[name] for name in ("parity", "chats", "texts", "tokens")}
    for name, report in reports.items():
        rows = report["continuations"]
        file = report["quantization"]
        metrics[name] = {
            "bytes": outputs[name].stat().st_size,
            "bits_per_weight": file["bits_per_weight"],
            "fallbacks": sum(map(len, file["fallbacks"].values())),
        }
        if rows:
            agreeing, total = (sum(r[k] for r in rows) for k in ("agreeing_tokens", "tokens"))
            metrics[name]["agreeing_answer_tokens"] = f"{agreeing}/{total}"
    return metrics


def _question(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
