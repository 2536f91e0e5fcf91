"""Have a teacher model write training rows, by one of several methods.

A method decides what the teacher is asked and which replies become rows; it has fields of its own
(below). Every reply is journaled before it is used: a killed run sends no answered request again,
and a higher `count` pays only for the new rows. Each row names the method, the source rows, the
steps and the teacher that it comes from. What was rejected is in `rejects` with the reason. Exact
duplicates are removed. The seeds themselves are not among the rows. A teacher's reasoning is not
part of an answer; the row's provenance keeps it.

The stage makes exactly `count` rows. If it cannot, it fails and says why, with the rejects counted
by reason; `allow_fewer` accepts what there is. `llmpipe show SPEC STAGE --rows 5` makes a few rows
and shows them with their prompts and rejects; a run does not pay for those replies again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmpipe.backends.spending import dollars
from llmpipe.contracts import (
    Effort,
    EstimateContext,
    Estimates,
    FieldPath,
    Finding,
    Input,
    Needs,
    Output,
    Ports,
    Showable,
    StageContext,
    StageDefaults,
    StageResult,
    Stochastic,
    Variants,
    semantic_fields,
)
from llmpipe.formats.provenance import PROVENANCE, provenance_column
from llmpipe.formats.records import write_rows
from llmpipe.needs import Given, Need, packages
from llmpipe.registry import variant_class
from llmpipe.stages.generate.asking import Client, Teacher
from llmpipe.stages.generate.loop import GenerationState, collect, gather
from llmpipe.stages.generate.methods import ENTRY_POINTS, METHODS
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.protocol import (
    GenerateConfig,
    GeneratedRow,
    Method,
    MethodContext,
    Reject,
)
from llmpipe.stages.generate.teacher import (
    budget_problems,
    endpoint_metrics,
    identity,
    open_teacher,
)

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatClient


class Generate(StageDefaults, Showable, Stochastic, Estimates):
    """The stage kind ``generate``."""

    Config = GenerateConfig
    VERSION = 7
    determinism = "external"
    variants = Variants("method", METHODS, ENTRY_POINTS)

    @staticmethod
    def ports(config: GenerateConfig) -> Ports:
        inputs = dict(config.sources())
        if config.teacher.local:
            inputs["teacher"] = Input(("teacher", "model"), config.teacher.model, ("gguf",))
        outputs = {"rows": Output("records"), "rejects": Output("records")}
        return Ports(inputs, outputs, default="rows")

    @staticmethod
    def problems(config: GenerateConfig) -> list[tuple[FieldPath, str]]:
        of_teacher = [(("teacher", name), message) for name, message in config.teacher.problems()]
        of_budget = [
            (("budget", name), message)
            for name, message in budget_problems(config.budget, config.teacher)
        ]
        return [*of_teacher, *of_budget, *config.own_problems()]

    @staticmethod
    def review(config: GenerateConfig, folder: Path) -> list[Finding]:
        return list(config.review())

    @staticmethod
    def fingerprint(config: GenerateConfig) -> Mapping[str, Any]:
        # Where fewer rows are allowed, a budget decides how many there are.
        without = frozenset() if config.allow_fewer else frozenset({"budget"})
        data = semantic_fields(config, without=without)
        return {**data, "teacher": config.teacher.fingerprint()}

    @staticmethod
    def effort(fingerprint: Mapping[str, Any]) -> Effort:
        return Effort(
            float(fingerprint["count"]), grows=False, covers=frozenset({"count", "random_seed"})
        )

    @staticmethod
    def tools(config: GenerateConfig) -> tuple[str, ...]:
        return ("xllamacpp",) if config.teacher.local else ()

    @staticmethod
    def needs(config: GenerateConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return packages(config.teacher.package(), *config.packages())

    @staticmethod
    def estimate(
        config: GenerateConfig, inputs: Mapping[str, Given], asked: EstimateContext
    ) -> Needs:
        from llmpipe.stages.generate.estimate import estimate

        return estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[GenerateConfig]) -> StageResult:
        config = ctx.config
        state = GenerationState(config.count)
        method = _method(ctx, state)
        state.exclude(method.known_questions())
        pace = Pace(lambda note: ctx.progress(len(state.rows), config.count, note))
        with _client(ctx, pace) as client:
            collect(
                method, _asking(config, client, pace), state, ctx.warn,
                patience=config.patience, allow_fewer=config.allow_fewer,
            )  # fmt: skip
        return _written(ctx, method, state, client)

    @staticmethod
    def show_rows(ctx: StageContext[GenerateConfig], rows: int) -> list[str]:
        from llmpipe.stages.generate.preview import Recorder, preview_patience, preview_texts

        ctx = replace(ctx, config=_for_preview(ctx.config, rows))
        state = GenerationState(rows)
        method = _method(ctx, state)
        state.exclude(method.known_questions())
        pace = Pace(lambda note: None)
        with _client(ctx, pace) as client:
            asked = Recorder(client, pace)
            teacher = _asking(ctx.config, asked, pace)
            patience = preview_patience(rows)
            ended = gather(method, teacher, state, ctx.warn, patience=patience)
        return preview_texts(state, list(_rows(ctx, state)), asked, ended)


def _for_preview(config: GenerateConfig, rows: int) -> GenerateConfig:
    """Ask no more at once than there are rows to show, and wait for no batch; no row changes."""
    at_once = min(config.teacher.concurrency, rows)
    teacher = msgspec.structs.replace(config.teacher, concurrency=at_once, mode="requests")
    return msgspec.structs.replace(config, teacher=teacher)


def _client(ctx: StageContext[GenerateConfig], pace: Pace) -> AbstractContextManager[ChatClient]:
    """Open the teacher of a stage."""
    return open_teacher(
        ctx.config.teacher,
        ctx.inputs.get("teacher"),
        journal=ctx.journal,
        work=ctx.work,
        threads=ctx.threads,
        reveal=ctx.reveal,
        resample=ctx.resample,
        budget=ctx.config.budget,
        requires=ctx.config.requires(),
        warn=ctx.warn,
        on_reply=pace.replied,
    )


def _asking(config: GenerateConfig, client: Client, pace: Pace) -> Teacher:
    """Return the teacher as methods see it."""
    decoding = config.teacher
    return Teacher(client, pace, temperature=decoding.temperature, max_tokens=decoding.max_tokens)


def _method(ctx: StageContext[GenerateConfig], state: GenerationState) -> Method:
    """Return the method that the config names, with its inputs read."""
    cls: type[Method] = variant_class(Generate, ctx.config.method)
    return cls(MethodContext(ctx.config, ctx.inputs, state.missing, ctx.warn))


def _written(
    ctx: StageContext[GenerateConfig], method: Method, state: GenerationState, client: ChatClient
) -> StageResult:
    """Write the rows and the rejects, and return the stage's result."""
    from llmpipe.backends.openai.journal import counted_replies
    from llmpipe.stages.generate.estimate import most_money

    outputs = {"rows": ctx.out / "rows.jsonl", "rejects": ctx.out / "rejects.jsonl"}
    write_rows(outputs["rows"], _rows(ctx, state))
    write_rows(outputs["rejects"], map(_reject, state.rejects))
    known = client.journal.reused
    replies: dict[str, Any] = {"replies_new": client.sent, "replies_from_journal": known}
    if (estimated := most_money(ctx.config)) is not None:
        replies["usd_estimated"] = round(estimated, 6)
    spending = {**client.ledger.metrics(), **endpoint_metrics(client)}
    summary = (
        f"{len(state.rows)} rows, {len(state.rejects)} rejected, {counted_replies(client.sent)}"
    )
    if known:
        summary += f" and {known} from the journal"
    if "usd" in spending:
        summary += f", {dollars(spending['usd'])}"
    elif "usd_at_most" in spending:
        summary += f", at most {dollars(spending['usd_at_most'])}"
    metrics = {**method.metrics(), **state.metrics(), **replies, **spending}
    return StageResult(outputs, metrics, summary)


def _rows(ctx: StageContext[GenerateConfig], state: GenerationState) -> Iterator[dict[str, Any]]:
    """Yield the rows as they are written."""
    teacher = identity(ctx.config.teacher, ctx.inputs.get("teacher"))
    return (_row(row, ctx.config.method, teacher) for row in state.rows)


def _row(row: GeneratedRow, method: str, teacher: Mapping[str, str]) -> dict[str, Any]:
    """Return the row as it is written, with its provenance."""
    details: dict[str, Any] = {"operators": list(row.operators), "teacher": dict(teacher)}
    details |= row.details
    if row.reasoning:
        details["reasoning"] = row.reasoning
    provenance = provenance_column(row.fields, row.made_from, method=method, **details)
    return {**row.fields, PROVENANCE: provenance}


def _reject(reject: Reject) -> dict[str, Any]:
    return {
        "reason": reject.reason,
        "text": reject.text,
        "operator": reject.operator,
        "round": reject.round,
        "parents": [each.id for each in reject.made_from],
        "detail": reject.detail,
    }
