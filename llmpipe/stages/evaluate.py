"""Compare several models on the same held-out rows, with confidence intervals.

Models and adapters run in transformers; a GGUF is served by llama.cpp, as in use. All get the same
prompts and decoding, and are judged by the answer without the reasoning before it; see
`llmpipe.stages.evaluate_models`.

The metrics are the loss on the reference answers (not for a GGUF), and ROUGE-L, exact match and
JSON equality of greedy answers. Each has a 95 % interval: Wilson's for shares of rows, bootstrapped
for the others, and paired for each two models. A loss is in nats per token over the whole set, so
long answers weigh more; resampling is by row. A reward model can mark the answers. Not covered:
public benchmarks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from llmpipe.backends import device
from llmpipe.backends.huggingface.base_model import REWARD_ADAPTER
from llmpipe.backends.reasoning import Reply, part, part_unseen
from llmpipe.contracts import (
    Artifact,
    FieldPath,
    Finding,
    Input,
    Output,
    Ports,
    RandomSeed,
    StageConfig,
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
from llmpipe.formats import RowError, read_conversation
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.formats.leakage import question_key, words_of
from llmpipe.formats.mapping import ColumnMap
from llmpipe.formats.records import WrittenFloat, read_rows, write_rows
from llmpipe.formats.row import expecting
from llmpipe.formats.turn import message_of
from llmpipe.needs import Given, Need, packages
from llmpipe.stages.evaluate_models import METHOD, Chat, Progress, Result, examine, warn, work
from llmpipe.stages.evaluate_reward import REWARD, rewards

Metric = Literal["loss", "rouge_l", "exact_match", "json_match"]
TEXT_METRICS: dict[str, Callable[[str, str], float]] = {
    "rouge_l": rouge_l,
    "exact_match": exact_match,
    "json_match": json_match,
}
CONSTRAINED = "`json_schema` constrains what llama.cpp decodes: name a GGUF (export the model)"


class FewShot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Examples that precede every question as earlier turns of the conversation."""

    data: str
    """Rows to draw the examples from. Rows with an evaluated question are skipped."""
    count: Annotated[int, msgspec.Meta(ge=1)] = 5
    """The number of examples."""
    random_seed: RandomSeed = 0
    """Determines which examples are drawn. All questions get the same ones."""


class EvaluateConfig(StageConfig, frozen=True, kw_only=True):
    """The models to compare, and the rows."""

    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """The models to compare: models, adapters, GGUFs, or `base`, the model that the others were
    trained from."""
    data: str
    """The held-out rows, in any known format. The last assistant turn is the reference answer.
    Reasoning before it (`<think>…</think>`) is not compared; it counts in `loss` if the chat
    template writes it."""
    map: ColumnMap | None = None
    """The columns of `data` with the question and the answer, if the format is not a known one."""
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Use only this many rows, drawn by `random_seed`."""
    metrics: Annotated[tuple[Metric, ...], msgspec.Meta(min_length=1)] = (
        "loss",
        "rouge_l",
        "exact_match",
    )
    """The metrics. All but `loss` require generated answers, which takes most of the time."""
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1)] = 128
    """Maximum tokens of a reply, including reasoning; a longer reply is cut. A reply that is cut
    inside its reasoning has no answer; such replies are counted."""
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Answers that transformers generates at the same time; memory grows with it."""
    few_shot: FewShot | None = None
    """Examples to put before every question."""
    json_schema: str | None = None
    """A JSON Schema file for the answers, enforced by llama.cpp while decoding; GGUF only. A schema
    that llama.cpp would ignore is an error, and so is an answer that does not follow it, unless it
    was cut. Reasoning is exempt if the model's chat template supports it."""
    reward_model: str | None = None
    """A model that marks every answer in its conversation, as the metric `reward`: a stage with
    `reward_model: true` and no adapter, a folder or a hub id."""
    random_seed: RandomSeed = 0
    """Determines which rows `limit` draws, and the resamples for the intervals."""


class Evaluate(StageDefaults):
    """The stage kind ``evaluate``."""

    Config = EvaluateConfig
    VERSION = 7
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
        if config.json_schema:
            inputs["json_schema"] = Input(("json_schema",), config.json_schema, ("file",))
        if config.reward_model:
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
        if config.json_schema and set(config.metrics) <= {"loss"}:
            found.append((("json_schema",), "has no effect on `loss`; measure an answer metric"))
        if config.reward_model and set(config.metrics) <= {"loss"}:
            found.append((("reward_model",), "marks answers; measure an answer metric beside it"))
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
    def metrics(config: EvaluateConfig) -> list[str]:
        names = _measured(config)
        measured = [f"{model}.{metric}" for model in config.models for metric in names]
        return [*measured, "replies"]

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
    def run(ctx: StageContext[EvaluateConfig]) -> StageResult:
        """Read the rows, evaluate one model after the other, compare them.

        Raises:
            StageError: A row, a model or the schema cannot be used.
        """
        config = ctx.config
        compared = set(config.metrics) > {"loss"} or "loss" not in config.metrics
        rows = _read(ctx, ctx.input("data"), config.map, answers=compared)
        chats = drawn(rows, config.limit, config.random_seed)
        if "json_match" in config.metrics:
            _check_json_references(ctx, chats)
        if compared:
            _warn_of_unopened(ctx, chats)
        asked = _with_shots(ctx, chats)
        models = [ctx.input(f"models.{i}") for i in range(len(config.models))]
        progress = Progress(ctx, len(chats) * sum(map(len, (work(ctx, m) for m in models))))
        results = {model.label: examine(ctx, model, asked, progress) for model in models}
        warn(ctx, results, {model.label for model in models if model.type == "gguf"})
        references = [_reference(chat).answer for chat in chats]
        scores = {label: _scores(config, result, references) for label, result in results.items()}
        if config.reward_model:
            for label, marks in rewards(ctx, chats, results).items():
                scores[label][REWARD] = marks
        summary = summarize(scores, config.random_seed)
        written = {**summary, "method": METHOD, "replies": _counts(results, chats)}
        predictions = ctx.out / "predictions.jsonl"
        write_rows(predictions, (_prediction(i, chat, results) for i, chat in enumerate(chats)))
        return StageResult(
            {"metrics": write_json(ctx.out / "metrics.json", written), "predictions": predictions},
            compact(summary),
            f"{table(summary, _measured(config))}\n{len(chats)} rows, 95 % intervals",
        )


def _measured(config: EvaluateConfig) -> list[str]:
    return [*config.metrics, *([REWARD] if config.reward_model else [])]


def _read(
    ctx: StageContext[EvaluateConfig],
    source: Artifact,
    columns: ColumnMap | None,
    *,
    answers: bool = False,
) -> list[Chat]:
    """Read rows as chats that ask something and answer it; ``answers`` must follow reasoning.

    Raises:
        StageError: a row cannot be read or has no question or answer, or there are no rows.
    """
    chats: list[Chat] = []
    tools = 0
    system = columns.system if columns else None
    rows = read_rows(source.path, source.label, floats=WrittenFloat)  # as training reads them
    for line, row in expecting(rows, system, source.label):
        try:
            conversation = read_conversation(row, columns)
        except RowError as error:
            place = f"{source.label}:{line}"
            raise StageError(f"{place}: {error.message}", hint=error.hint) from None
        chat = [message_of(turn) for turn in conversation.turns]
        tools += conversation.tools is not None
        if not conversation.prompt():
            raise StageError(
                f"{source.label}:{line}: raw text has no question to answer",
                hint="evaluate on rows with a question and an answer",
            )
        if answers and not _reference(chat).answer:
            raise StageError(
                f"{source.label}:{line}: the reference ends inside its reasoning: it has no answer",
                hint="remove the row, or measure only `loss`",
            )
        chats.append(chat)
    if not chats:
        raise StageError(f"{source.label}: no rows to evaluate on")
    if tools:
        ctx.warn(
            f"{source.label}: {tools} rows define tools, which the models do not see here: answers "
            "that call one are compared by text only"
        )
    return chats


def _with_shots(ctx: StageContext[EvaluateConfig], chats: list[Chat]) -> list[Chat]:
    """Put the examples before every chat, after its system message."""
    few = ctx.config.few_shot
    if few is None:
        return chats
    source = ctx.input("few_shot.data")
    evaluated = {_question_key(chat) for chat in chats}
    others = [
        chat
        for chat in _read(ctx, source, ctx.config.map if few.data == ctx.config.data else None)
        if _question_key(chat) not in evaluated
    ]
    if len(others) < few.count:
        raise StageError(
            f"{source.label}: few_shot wants {few.count} rows; {len(others)} are not evaluated",
            hint="draw the examples from `train`, or lower few_shot.count",
        )
    shots = [
        turn
        for chat in drawn(others, few.count, few.random_seed)
        for turn in chat
        if turn["role"] != "system"
    ]
    return [
        [*chat[:1], *shots, *chat[1:]] if chat[0]["role"] == "system" else [*shots, *chat]
        for chat in chats
    ]


def _question_key(chat: Chat) -> bytes:
    asked = [turn["content"] for turn in chat if turn["role"] == "user"]
    return question_key(words_of(" ".join(asked)))


def _check_json_references(ctx: StageContext[EvaluateConfig], chats: Sequence[Chat]) -> None:
    for chat in chats:
        answer = _reference(chat).answer
        try:
            json.loads(answer)
        except ValueError:
            raise StageError(
                f"{ctx.input('data').label}: `json_match` needs reference answers in JSON, "
                f"not {answer[:60]!r}",
                hint="leave json_match out of `metrics`",
            ) from None


def _reference(chat: Chat) -> Reply:
    """Split the reference: reasoning at its beginning is not compared."""
    return part(chat[-1]["content"])


def _warn_of_unopened(ctx: StageContext[EvaluateConfig], chats: list[Chat]) -> None:
    """Warn of references with a closing tag without an opening one: reasoning, or a tag in text."""
    unopened = [
        chat for chat in chats if part_unseen(chat[-1]["content"]).answer != _reference(chat).answer
    ]
    if unopened:
        ctx.warn(
            f"{ctx.input('data').label}: {len(unopened)} references contain a closing tag of "
            f"reasoning without an opening one, and are compared as a whole, such as "
            f"{unopened[0][-1]['content'][:60]!r}; if reasoning precedes it, add the opening tag"
        )


def _scores(
    config: EvaluateConfig, result: Result, references: Sequence[str]
) -> dict[str, RowScores]:
    scores = {}
    for metric in config.metrics:
        if metric == "loss" and result.losses:
            scores["loss"] = RowScores(*map(list, zip(*result.losses, strict=True)))
        elif metric != "loss" and result.replies:
            answers = [reply.answer for reply in result.replies]
            scores[metric] = RowScores.mean(list(map(TEXT_METRICS[metric], references, answers)))
    return scores


def _counts(results: Mapping[str, Result], chats: Sequence[Chat]) -> dict[str, dict[str, Any]]:
    """Count by model how the replies ended, and the references that contain reasoning."""
    counts = {label: result.counts() for label, result in results.items() if result.replies}
    with_reasoning = sum(bool(_reference(chat).reasoning) for chat in chats)
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
    reference = _reference(chat)
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
