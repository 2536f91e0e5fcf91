"""Put the same held-out rows to several models and compare them, each with its uncertainty.

Models and adapters are run by transformers, a GGUF is served by llama.cpp as it will be in use.
Measured are the loss on the reference answers (not for a GGUF), and ROUGE-L, exact match and equal
JSON of greedy answers, with 95 % intervals: Wilson's for a share of rows, bootstrapped for the
others and, paired, for every two models. A loss is nats per token over the whole set, so long
answers weigh more; the resampling is by row. Not covered: judging by another model, benchmarks of
others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from llmpipe.backends import device
from llmpipe.contracts import (
    Artifact,
    FieldPath,
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
from llmpipe.errors import StageError
from llmpipe.evaluation.bootstrap import RowScores
from llmpipe.evaluation.sampling import drawn
from llmpipe.evaluation.summary import DIGITS, compact, summarise, table
from llmpipe.evaluation.text_metrics import exact_match, json_match, rouge_l
from llmpipe.formats import Message, RowError
from llmpipe.formats.mapping import ColumnMap, read_chat
from llmpipe.formats.message import expecting
from llmpipe.formats.overlap import question_key, question_words
from llmpipe.formats.records import read_rows, write_rows

Metric = Literal["loss", "rouge_l", "exact_match", "json_match"]
TEXT_METRICS: dict[str, Callable[[str, str], float]] = {
    "rouge_l": rouge_l,
    "exact_match": exact_match,
    "json_match": json_match,
}
CONSTRAINED = "`json_schema` constrains what llama.cpp decodes: name a GGUF (export the model)"


class FewShot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Examples that stand before every question as earlier turns of the conversation."""

    data: str
    """Rows to draw the examples from; those that ask an evaluated question are passed over."""
    count: Annotated[int, msgspec.Meta(ge=1)] = 5
    """How many examples."""
    seed: int = 0
    """Which examples are drawn; all questions get the same ones."""


class EvaluateConfig(StageConfig, frozen=True, kw_only=True):
    """Several models on the same held-out rows."""

    models: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """What to compare: models, adapters, GGUFs, or `base`, the model that the others came from."""
    data: str
    """The held-out rows, in any known format; the last assistant turn is the reference answer."""
    map: ColumnMap | None = None
    """Which columns of `data` hold the question and the answer, where the format is not known."""
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Use only this many rows, drawn by `seed`."""
    metrics: Annotated[tuple[Metric, ...], msgspec.Meta(min_length=1)] = (
        "loss",
        "rouge_l",
        "exact_match",
    )
    """What to measure. All but `loss` need answers to be written, which takes most of the time."""
    max_new_tokens: Annotated[int, msgspec.Meta(ge=1)] = 128
    """Tokens after which an answer is cut."""
    batch_size: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Answers that transformers writes at the same time; memory grows with it."""
    few_shot: FewShot | None = None
    """Examples to put before every question."""
    json_schema: str | None = None
    """A JSON Schema file that answers must follow, held by llama.cpp while decoding; GGUF only."""
    seed: int = 0
    """Which rows `limit` draws, and which resamples give the intervals."""


class Evaluate(StageDefaults):
    """See the module's docstring."""

    Config = EvaluateConfig
    VERSION = 2
    determinism = "same-machine"
    looks_around = True

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
        if problem or (config.map and config.map.text):
            found.append((("map",), problem or "raw text asks nothing; name question and answer"))
        if config.json_schema and set(config.metrics) <= {"loss"}:
            found.append((("json_schema",), "has no effect on `loss`; measure an answer metric"))
        return found

    @staticmethod
    def fingerprint(config: EvaluateConfig) -> dict[str, Any]:
        found = device.detect()
        labels = list(config.models)  # they stand in the figures: a renamed stage renames them
        return {**semantic_fields(config), "labels": labels, "device": [found.kind, found.dtype]}

    @staticmethod
    def tools(config: EvaluateConfig) -> tuple[str, ...]:
        return ("peft", "rouge-score", "torch", "transformers", "xllamacpp")

    @staticmethod
    def run(ctx: StageContext[EvaluateConfig]) -> StageResult:
        """Read the rows, put them to one model after the other, compare.

        Raises:
            StageError: a row, a model or the schema cannot be used.
        """
        config = ctx.config
        chats = drawn(_read(ctx.input("data"), config.map), config.limit, config.seed)
        if "json_match" in config.metrics:
            _check_json_references(ctx, chats)
        asked = _with_shots(ctx, chats)
        models = [ctx.input(f"models.{i}") for i in range(len(config.models))]
        progress = _Progress(ctx, len(chats) * sum(map(len, (_work(ctx, m) for m in models))))
        results = {model.label: _examine(ctx, model, asked, progress) for model in models}
        references = [chat[-1]["content"] for chat in chats]
        scores = {label: _scores(config, result, references) for label, result in results.items()}
        summary = summarise(scores, config.seed)
        predictions = ctx.out / "predictions.jsonl"
        write_rows(predictions, (_prediction(i, chat, results) for i, chat in enumerate(chats)))
        return StageResult(
            {"metrics": write_json(ctx.out / "metrics.json", summary), "predictions": predictions},
            compact(summary),
            f"{table(summary, config.metrics)}\n{len(chats)} rows, 95 % intervals",
        )


@dataclass(slots=True)
class _Result:
    """What one model made of the rows: sums of nats and counts of tokens, and answers."""

    losses: list[tuple[float, int]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Progress:
    """Counts rows over all models and both kinds of work."""

    ctx: StageContext[EvaluateConfig]
    total: int
    done: int = 0

    def counter(self, note: str) -> Callable[[int], None]:
        def add(rows: int) -> None:
            self.done += rows
            self.ctx.progress(self.done, self.total, note)

        add(0)
        return add


def _read(source: Artifact, columns: ColumnMap | None) -> list[list[Message]]:
    """Read rows as chats that ask something and answer it.

    Raises:
        StageError: a row cannot be read or has no question, or there are no rows.
    """
    chats = []
    system = columns.system if columns else None
    for line, row in expecting(read_rows(source.path, source.label), system, source.label):
        try:
            chat = read_chat(row, columns)
        except RowError as error:
            place = f"{source.label}:{line}"
            raise StageError(f"{place}: {error.message}", hint=error.hint) from None
        if not any(message["role"] == "user" for message in chat):
            raise StageError(
                f"{source.label}:{line}: raw text asks nothing, so nothing can be answered",
                hint="evaluate on rows with a question and an answer",
            )
        chats.append(chat)
    if not chats:
        raise StageError(f"{source.label}: no rows to evaluate on")
    return chats


def _with_shots(
    ctx: StageContext[EvaluateConfig], chats: list[list[Message]]
) -> list[list[Message]]:
    """Put the examples before every chat, after its system message."""
    few = ctx.config.few_shot
    if few is None:
        return chats
    source = ctx.input("few_shot.data")
    evaluated = {question_key(question_words(chat)) for chat in chats}
    others = [
        chat
        for chat in _read(source, ctx.config.map if few.data == ctx.config.data else None)
        if question_key(question_words(chat)) not in evaluated
    ]
    if len(others) < few.count:
        raise StageError(
            f"{source.label}: few_shot wants {few.count} rows; {len(others)} are not evaluated",
            hint="draw the examples from `train`, or lower few_shot.count",
        )
    shots = [
        turn
        for chat in drawn(others, few.count, few.seed)
        for turn in chat
        if turn["role"] != "system"
    ]
    return [
        [*chat[:1], *shots, *chat[1:]] if chat[0]["role"] == "system" else [*shots, *chat]
        for chat in chats
    ]


def _check_json_references(
    ctx: StageContext[EvaluateConfig], chats: Sequence[Sequence[Message]]
) -> None:
    for chat in chats:
        try:
            json.loads(chat[-1]["content"])
        except ValueError:
            raise StageError(
                f"{ctx.input('data').label}: `json_match` needs reference answers in JSON, "
                f"not {chat[-1]['content'][:60]!r}",
                hint="leave json_match out of `metrics`",
            ) from None


def _work(ctx: StageContext[EvaluateConfig], model: Artifact) -> list[str]:
    """Name what is to be done with a model: score the references, write answers, or both."""
    score = "loss" in ctx.config.metrics and model.type != "gguf"
    answer = bool(set(ctx.config.metrics) & set(TEXT_METRICS))
    if not score and not answer:
        raise StageError(
            f"{model.label}: the loss of a GGUF is not measured",
            hint="add rouge_l or exact_match to `metrics`, or leave the GGUF out",
        )
    return ["loss"] * score + ["answers"] * answer


def _examine(
    ctx: StageContext[EvaluateConfig],
    model: Artifact,
    chats: list[list[Message]],
    progress: _Progress,
) -> _Result:
    if model.type == "gguf":
        return _Result(answers=_served_answers(ctx, model, chats, progress))
    from llmpipe.backends.transformers import answer_losses, greedy_answers, opened_model

    config, work, result = ctx.config, _work(ctx, model), _Result()
    folder, adapter = (model.base.path, model.path) if model.base else (model.path, None)
    with opened_model(folder, adapter, threads=ctx.threads, label=model.label) as loaded:
        if "loss" in work:
            count = progress.counter(f"{model.label}: loss")
            losses = answer_losses(loaded, chats, on_done=count)
            result.losses = [(loss.nll, loss.tokens) for loss in losses]
        if "answers" in work:
            count = progress.counter(f"{model.label}: answers")
            asked = [chat[:-1] for chat in chats]
            result.answers = greedy_answers(
                loaded, asked, config.max_new_tokens, config.batch_size, on_done=count
            )
    return result


def _served_answers(
    ctx: StageContext[EvaluateConfig],
    model: Artifact,
    chats: list[list[Message]],
    progress: _Progress,
) -> list[str]:
    """Ask the GGUF as it will be served, one question at a time.

    Several at once gain nothing on few cores, and how they fall together would sway the answers.
    """
    from llmpipe.backends.llama_cpp import serve_gguf

    config = ctx.config
    schema = _schema(ctx.input("json_schema")) if config.json_schema else None
    count = progress.counter(f"{model.label}: answers")
    answers = []
    with serve_gguf(model.path, threads=ctx.threads, context=_context(chats, config)) as server:
        for chat in chats:
            asked = [{"role": turn["role"], "content": turn["content"]} for turn in chat[:-1]]
            answers.append(server.chat(asked, max_tokens=config.max_new_tokens, json_schema=schema))
            count(1)
    return answers


def _context(chats: Sequence[Sequence[Message]], config: EvaluateConfig) -> int:
    """Give a context that surely holds the longest chat: no token is shorter than a byte."""
    longest = max(sum(len(turn["content"].encode()) + 32 for turn in chat[:-1]) for chat in chats)
    return -(-(longest + 256 + config.max_new_tokens) // 256) * 256


def _schema(file: Artifact) -> dict[str, Any]:
    try:
        schema = json.loads(file.path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StageError(f"{file.label}: not a JSON Schema: {error}") from None
    if not isinstance(schema, dict):
        raise StageError(f"{file.label}: not a JSON Schema: it must be an object")
    return schema


def _scores(
    config: EvaluateConfig, result: _Result, references: Sequence[str]
) -> dict[str, RowScores]:
    scores = {}
    for metric in config.metrics:
        if metric == "loss" and result.losses:
            scores["loss"] = RowScores(*map(list, zip(*result.losses, strict=True)))
        elif metric != "loss" and result.answers:
            values = map(TEXT_METRICS[metric], references, result.answers)
            scores[metric] = RowScores.mean(list(values))
    return scores


def _prediction(
    row: int, chat: Sequence[Message], results: Mapping[str, _Result]
) -> dict[str, Any]:
    """Give what every model made of one row; a loss is nats per token of the reference."""
    asked = [turn["content"] for turn in chat if turn["role"] == "user"]
    losses = {
        label: round(result.losses[row][0] / result.losses[row][1], DIGITS)
        for label, result in results.items()
        if result.losses
    }
    answers = {label: result.answers[row] for label, result in results.items() if result.answers}
    return {
        "row": row,
        "question": asked[-1],
        "reference": chat[-1]["content"],
        "answers": answers,
        "losses": losses,
    }
