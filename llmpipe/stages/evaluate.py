"""Compare several models on the same held-out rows, with confidence intervals.

Models and adapters run in transformers; a GGUF is served by llama.cpp, as in use. All get the same
prompts and decoding, and are judged by the answer without the reasoning before it; see
`llmpipe.stages.evaluate_models`.

The metrics are the loss on the reference answers, and ROUGE-L, exact match and JSON equality of
greedy answers. Each has a 95 % interval: Wilson's for shares of rows, bootstrapped for the others,
and paired for each two models. A loss is in nats per token over the whole set, so long answers
weigh more; resampling is by row. `kl` and `same_top` compare the predictions of every model with
those of the model or adapter that is listed last before the GGUFs: use them to choose the
quantization. A GGUF's loss needs that model, too, because its tokenizer turns the rows into tokens.
For each GGUF, the size, the bits per weight, the tensors that fell back to another type, and the
tokens per second are shown. A reward model can mark
the answers. Not covered: public benchmarks.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmpipe.backends import device
from llmpipe.backends.huggingface.base_model import REWARD_ADAPTER
from llmpipe.contracts import (
    Artifact,
    ArtifactType,
    EstimateContext,
    Estimates,
    FieldPath,
    Finding,
    Input,
    Needs,
    Output,
    Ports,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
    write_json,
)
from llmpipe.errors import StageError
from llmpipe.evaluation.bootstrap import RowScores
from llmpipe.evaluation.sampling import drawn
from llmpipe.evaluation.summary import DIGITS, compact, summarize, table
from llmpipe.evaluation.text_metrics import exact_match, json_match, rouge_l
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.formats.records import write_rows
from llmpipe.needs import Given, Need, packages
from llmpipe.stages.evaluate_config import EvaluateConfig
from llmpipe.stages.evaluate_logits import COMPARED, LIKELIHOODS, reference_of, require_reference
from llmpipe.stages.evaluate_models import METHOD, Result, examine_all, warn
from llmpipe.stages.evaluate_reward import REWARD, rewards
from llmpipe.stages.evaluate_rows import (
    Chat,
    check_json_references,
    read_chats,
    reference_answer,
    warn_of_unopened,
    with_shots,
)

TEXT_METRICS: dict[str, Callable[[str, str], float]] = {
    "rouge_l": rouge_l,
    "exact_match": exact_match,
    "json_match": json_match,
}
LIMITED = ("loss", "kl")
"""The metrics that `fail_above` limits."""
FILE_METRICS = ("bytes", "bits_per_weight", "fallbacks")
"""What is known of the file of a GGUF."""
CONSTRAINED = "`json_schema` constrains what llama.cpp decodes: name a GGUF (export the model)"


class Evaluate(StageDefaults, Estimates):
    """The stage kind ``evaluate``."""

    Config = EvaluateConfig
    VERSION = 9
    determinism = "same-machine"
    reads_environment = True
    imports = ("torch", "transformers")

    @staticmethod
    def ports(config: EvaluateConfig) -> Ports:
        constrained = config.json_schema is not None
        inputs = {
            f"models.{i}": Input(
                ("models", i),
                model,
                ("gguf",) if constrained else ("model", "adapter", "gguf"),
                refuse={"model": CONSTRAINED, "adapter": CONSTRAINED} if constrained else {},
                base_allowed=True,
            )
            for i, model in enumerate(config.models)
        }
        inputs["data"] = Input(("data",), config.data, ("dataset", "records"))
        if config.few_shot:
            shots = config.few_shot.data
            inputs["few_shot.data"] = Input(("few_shot", "data"), shots, ("dataset", "records"))
        if config.json_schema is not None:
            inputs["json_schema"] = Input(("json_schema",), config.json_schema, ("file",))
        if config.reward_model is not None:
            refuse = {"adapter": REWARD_ADAPTER}
            judge = Input(("reward_model",), config.reward_model, ("model",), refuse=refuse)
            inputs["reward_model"] = judge
        outputs = {"metrics": Output("metrics"), "predictions": Output("records")}
        return Ports(inputs, outputs, default="metrics")

    @staticmethod
    def problems(config: EvaluateConfig) -> list[tuple[FieldPath, str]]:
        found: list[tuple[FieldPath, str]] = []
        for i, model in enumerate(config.models):
            if model in config.models[:i]:
                found.append((("models", i), f"{model!r} is listed twice"))
            if model == "base" and config.json_schema:
                found.append((("models", i), CONSTRAINED))
        problem = config.map.problem() if config.map else None
        if config.map and not problem and not (config.map.user or config.map.messages):
            problem = "raw text and pairs have no single answer: name `user` and `assistant`"
        if problem:
            found.append((("map",), problem))
        if config.json_schema and set(config.metrics) <= set(LIKELIHOODS):
            found.append((("json_schema",), "has no effect on `loss`; measure an answer metric"))
        if config.reward_model and set(config.metrics) <= set(LIKELIHOODS):
            found.append((("reward_model",), "marks answers; measure an answer metric beside it"))
        for metric in config.fail_above:
            if metric not in LIMITED:
                found.append((("fail_above", metric), f"only {' and '.join(LIMITED)} have a limit"))
            elif metric not in config.metrics:
                found.append((("fail_above", metric), f"add {metric!r} to `metrics`"))
        return found

    @staticmethod
    def fingerprint(config: EvaluateConfig) -> dict[str, Any]:
        found = device.detect()
        labels = list(config.models)  # the metrics contain the names: a renamed stage renames them
        fields = {**semantic_fields(config), "labels": labels, "device": [found.kind, found.dtype]}
        if config.reward_model is None:
            del fields["reward_model"]  # the keys of stages without one stay as they were
        return fields

    @staticmethod
    def metrics(config: EvaluateConfig, types: Mapping[str, ArtifactType]) -> list[str]:
        """List what is measured of every model, and what is known of the file of each GGUF."""
        names = _measured(config)
        measured = [f"{model}.{metric}" for model in config.models for metric in names]
        of_type = {model: types.get(f"models.{i}") for i, model in enumerate(config.models)}
        files = [
            f"{model}.{metric}"
            for model in config.models
            for metric in FILE_METRICS
            if of_type[model] == "gguf"
        ]
        return [*measured, *files, "replies"]

    @staticmethod
    def review(config: EvaluateConfig, folder: Path) -> list[Finding]:
        """Check that the named columns exist."""
        return list(absent([config.data], named_columns(("map",), config.map)))

    @staticmethod
    def tools(config: EvaluateConfig) -> tuple[str, ...]:
        return ("peft", "regex", "rouge-score", "torch", "transformers", "xllamacpp")

    @staticmethod
    def needs(config: EvaluateConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        types = {given.type for port, given in inputs.items() if port.startswith("models.")}
        names = ["numpy"]
        if "rouge_l" in config.metrics:
            names += ["regex", "rouge-score"]
        if "gguf" in types:
            names.append("xllamacpp")
        if types & {"model", "adapter"} or config.reward_model:
            names += ["torch", "transformers"]
        if "adapter" in types:
            names.append("peft")
        return packages(*names)

    @staticmethod
    def estimate(
        config: EvaluateConfig, inputs: Mapping[str, Given], asked: EstimateContext
    ) -> Needs:
        from llmpipe.stages.model_estimates import evaluate_estimate

        return evaluate_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[EvaluateConfig]) -> StageResult:
        """Read the rows, evaluate one model after the other, compare them.

        Raises:
            StageError: A row, a model or the schema cannot be used.
        """
        config = ctx.config
        models = [ctx.input(f"models.{i}") for i in range(len(config.models))]
        require_reference(models, config.metrics, config.fail_above)
        answered = bool(set(config.metrics) - set(LIKELIHOODS))
        rows = read_chats(ctx, ctx.input("data"), config.map, answers=answered)
        chats = drawn(rows, config.limit, config.random_seed)
        if "json_match" in config.metrics:
            check_json_references(ctx, chats)
        if answered:
            warn_of_unopened(ctx, chats)
        results = examine_all(ctx, models, with_shots(ctx, chats))
        warn(ctx, results, {model.label for model in models if model.type == "gguf"})
        references = [reference_answer(chat).answer for chat in chats]
        scores = {label: _scores(config, result, references) for label, result in results.items()}
        if config.reward_model:
            for label, marks in rewards(ctx, chats, results).items():
                scores[label][REWARD] = marks
        summary = summarize(scores, config.random_seed)
        check_limits(config, summary, reference_of(models))
        files = {label: result.file for label, result in results.items() if result.file}
        for label, file in files.items():
            summary["models"][label] |= {key: file[key] for key in FILE_METRICS}
        written = {**summary, "method": METHOD, "replies": _counts(results, chats), "files": files}
        predictions = ctx.out / "predictions.jsonl"
        write_rows(predictions, (_prediction(i, chat, results) for i, chat in enumerate(chats)))
        shown = compact(summary)
        for label, result in results.items():
            if result.speed is not None:  # it differs from run to run: not in metrics.json
                shown[label]["megabytes"] = round(shown[label].pop("bytes") / 1e6, 1)
                shown[label]["tokens_per_second"] = round(result.speed, 1)
        return StageResult(
            {"metrics": write_json(ctx.out / "metrics.json", written), "predictions": predictions},
            shown,
            "\n".join(
                [
                    table(summary, _measured(config), pairs=_pairs(models)),
                    *_file_lines(results),
                    f"{len(chats)} rows, 95 % intervals",
                ]
            ),
        )


def _measured(config: EvaluateConfig) -> list[str]:
    return [*config.metrics, *([REWARD] if config.reward_model else [])]


def _scores(
    config: EvaluateConfig, result: Result, references: Sequence[str]
) -> dict[str, RowScores]:
    scores = {}
    for metric in config.metrics:
        if metric == "loss" and result.losses:
            scores["loss"] = RowScores(*map(list, zip(*result.losses, strict=True)))
        elif metric in COMPARED and result.divergences:
            name = {"kl": "mean_kl", "same_top": "same_first"}[metric]
            tokens = [row.tokens for row in result.divergences]
            sums = [getattr(row, name) * row.tokens for row in result.divergences]
            scores[metric] = RowScores(sums, tokens)
        elif metric in TEXT_METRICS and result.replies:
            answers = [reply.answer for reply in result.replies]
            scores[metric] = RowScores.mean(list(map(TEXT_METRICS[metric], references, answers)))
    return scores


def check_limits(
    config: EvaluateConfig, summary: Mapping[str, Any], reference: Artifact | None
) -> None:
    """Require every model to keep within ``fail_above``; a metric that is not finite does not.

    A metric that was not measured does not either. The reference has no `kl`.
    """
    unmeasured = [
        f"{label}: {metric} was not measured, and `fail_above` limits it"
        for label, measured in summary["models"].items()
        for metric in config.fail_above
        if metric not in measured
        and not (metric in COMPARED and reference and label == reference.label)
    ]
    if unmeasured:
        raise StageError(
            "; ".join(unmeasured),
            hint="compare models with the same tokenizer, or remove the limit",
        )
    over = [
        f"{label}: {metric} {measured[metric]['mean']:.4g} is above {limit:g}"
        for label, measured in summary["models"].items()
        for metric, limit in config.fail_above.items()
        if metric in measured and not measured[metric]["mean"] <= limit
    ]
    if over:
        raise StageError(
            "; ".join(over), hint="quantize to a larger type, or raise the limit in `fail_above`"
        )


def _pairs(models: Sequence[Artifact]) -> list[tuple[str, str]]:
    """Pair each GGUF with the model that it is compared with, others with the one listed before."""
    reference = reference_of(models)
    return [
        (reference.label if reference and b.type == "gguf" else a.label, b.label)
        for a, b in itertools.pairwise(models)
    ]


def _file_lines(results: Mapping[str, Result]) -> list[str]:
    """Return a line about the file of each GGUF."""
    return [
        f"{label}: {file['bytes'] / 1e6:.1f} MB, {file['bits_per_weight']:.2f} bits per weight, "
        + (f"{file['fallbacks']} of {file['tensors']} tensors fell back ({fell}), " if fell else "")
        + f"{result.speed:.0f} tokens per second"
        for label, result in results.items()
        if (file := result.file)
        for fell in [", ".join(f"{n} {kinds}" for kinds, n in file["fell_back"].items())]
    ]


def _counts(results: Mapping[str, Result], chats: Sequence[Chat]) -> dict[str, dict[str, Any]]:
    """Count by model how the replies ended, and the references that contain reasoning."""
    counts = {label: result.counts() for label, result in results.items() if result.replies}
    with_reasoning = sum(bool(reference_answer(chat).reasoning) for chat in chats)
    return {**counts, "references": {"with_reasoning": with_reasoning}}


def _prediction(row: int, chat: Chat, results: Mapping[str, Result]) -> dict[str, Any]:
    """Return every model's results for one row; a loss is in nats per token of the reference."""
    asked = [turn["content"] for turn in chat if turn["role"] == "user"]
    losses = {
        label: round(result.losses[row][0] / result.losses[row][1], DIGITS)
        for label, result in results.items()
        if result.losses
    }
    replies = {label: result.replies[row] for label, result in results.items() if result.replies}
    reference = reference_answer(chat)
    thought = {label: reply.reasoning for label, reply in replies.items() if reply.reasoning}
    if reference.reasoning:
        thought["reference"] = reference.reasoning
    return {
        "row": row,
        "question": asked[-1],
        "reference": reference.answer,
        "answers": {label: reply.answer for label, reply in replies.items()},
        "losses": losses,
        **({"reasoning": thought} if thought else {}),
    }
