"""Have a teacher model write training rows from seed prompts, by Evol-Instruct.

Every reply is journalled before it is used: a killed run resends nothing that was answered, and a
higher `count` pays only for what is new. Each row says which seed row, operators and teacher it
comes from; what was eliminated stands in `rejects` with the reason. Exact duplicates are removed;
near-duplicates are not looked for. The seeds themselves are not among the rows. What a teacher
thinks before it answers is no part of an answer; a row's provenance keeps it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from llmpipe.contracts import (
    Effort,
    Finding,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    Stochastic,
    semantic_fields,
)
from llmpipe.errors import StageError
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.formats.provenance import PROVENANCE, provenance_column
from llmpipe.formats.records import write_rows
from llmpipe.needs import Given, Need, packages
from llmpipe.stages.generate.evol_instruct import (
    Decoding,
    EvolInstruct,
    Made,
    Rejected,
    draw_number,
)
from llmpipe.stages.generate.filters import normalised
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.seeds import Seed, SeedMap, read_seeds
from llmpipe.stages.generate.teacher import TeacherConfig, identity, open_teacher

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatClient


class GenerateConfig(StageConfig, frozen=True, kw_only=True):
    """What to write, who writes it, and from which seeds."""

    method: Literal["evol-instruct"]
    """How new rows are made of the seeds."""
    teacher: TeacherConfig
    """The model that rewrites, judges and answers."""
    seeds: str
    """The prompts to start from: a file (JSONL, JSON or CSV), or a stage's records or dataset."""
    map: SeedMap | None = None
    """Which columns of a seed row to use; known formats and a column `instruction` need none."""
    count: Annotated[int, Meta(ge=1)]
    """Rows wanted. Seeds are used again, by other draws, until there are so many."""
    rounds: Annotated[int, Meta(ge=1, le=16)] = 4
    """How often a prompt is evolved further before its seed is done."""
    seed: int = 0
    """Which operators are drawn, in which order seeds are taken, and how the teacher samples."""


class Generate(StageDefaults, Stochastic):
    """See the module's docstring."""

    Config = GenerateConfig
    VERSION = 4
    determinism = "external"

    @staticmethod
    def ports(config: GenerateConfig) -> Ports:
        inputs = {"seeds": Input(("seeds",), config.seeds, ("records", "dataset"))}
        if config.teacher.engine == "llama.cpp":
            inputs["teacher"] = Input(("teacher", "model"), config.teacher.model, ("gguf",))
        outputs = {"rows": Output("records"), "rejects": Output("records")}
        return Ports(inputs, outputs, default="rows")

    @staticmethod
    def problems(config: GenerateConfig) -> list[tuple[tuple[str | int, ...], str]]:
        return [(("teacher", name), message) for name, message in config.teacher.problems()]

    @staticmethod
    def review(config: GenerateConfig, folder: Path) -> list[Finding]:
        """Look for the columns that are named."""
        return list(absent([config.seeds], named_columns(("map",), config.map)))

    @staticmethod
    def fingerprint(config: GenerateConfig) -> Mapping[str, Any]:
        data = semantic_fields(config)
        dropped = {"api_key", "concurrency"}
        if config.teacher.engine == "openai":
            dropped.add("context")
        teacher = {k: v for k, v in data["teacher"].items() if k not in dropped}
        return {**data, "teacher": teacher}

    @staticmethod
    def effort(fingerprint: Mapping[str, Any]) -> Effort:
        return Effort(float(fingerprint["count"]), grows=False, covers=frozenset({"count", "seed"}))

    @staticmethod
    def tools(config: GenerateConfig) -> tuple[str, ...]:
        return ("xllamacpp",) if config.teacher.engine == "llama.cpp" else ()

    @staticmethod
    def needs(config: GenerateConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return packages("xllamacpp" if config.teacher.engine == "llama.cpp" else "openai")

    @staticmethod
    def run(ctx: StageContext[GenerateConfig]) -> StageResult:
        from llmpipe.backends.openai.journal import counted_replies

        config = ctx.config
        seeds = read_seeds(ctx.input("seeds"), config.map)
        gguf = ctx.inputs.get("teacher")
        harvest = Harvest(config.count, {normalised(seed.instruction) for seed in seeds})
        pace = Pace(lambda note: ctx.progress(len(harvest.rows), config.count, note))
        with open_teacher(
            config.teacher,
            gguf,
            journal=ctx.journal,
            work=ctx.work,
            threads=ctx.threads,
            reveal=ctx.reveal,
            anew=ctx.resample,
            on_reply=pace.replied,
        ) as client:
            _generate(ctx, client, _shuffled(seeds, config.seed), harvest, pace)
        teacher = identity(config.teacher, gguf)
        outputs = {"rows": ctx.out / "rows.jsonl", "rejects": ctx.out / "rejects.jsonl"}
        write_rows(outputs["rows"], (_row(made, teacher) for made in harvest.rows))
        write_rows(outputs["rejects"], map(_reject, harvest.rejects))
        known, sent = client.journal.reused, counted_replies(client.sent)
        replies = {"replies_new": client.sent, "replies_from_journal": known}
        figures = {"seeds": len(seeds), **harvest.counts(), **replies}
        summary = f"{len(harvest.rows)} rows, {len(harvest.rejects)} rejected, {sent}"
        if known:
            summary += f" and {known} from the journal"
        return StageResult(outputs, figures, summary)


@dataclass(slots=True)
class Harvest:
    """The rows so far, what was eliminated on the way, and every prompt seen."""

    wanted: int
    seen: set[str]
    rows: list[Made] = field(default_factory=list)
    rejects: list[Rejected] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """How many rows are still wanted."""
        return self.wanted - len(self.rows)

    def take(self, event: Made | Rejected) -> None:
        """Add a row or a reject; a row whose prompt is not new becomes a reject."""
        if isinstance(event, Rejected):
            self.rejects.append(event)
            return
        key = normalised(event.instruction)
        if key in self.seen:
            operator, depth = event.operators[-1], len(event.operators)
            self.rejects.append(
                Rejected(event.seed, "duplicate", event.instruction, operator, depth)
            )
        else:
            self.seen.add(key)
            self.rows.append(event)

    def counts(self) -> dict[str, Any]:
        """Give the figures: rows, rejects by reason, rows by the operator that made them."""
        reasons = Counter(reject.reason for reject in self.rejects)
        operators = Counter(row.operators[-1] for row in self.rows)
        return {
            "rows": len(self.rows),
            "rejected": dict(sorted(reasons.items())),
            "operators": dict(sorted(operators.items())),
            "rows_with_reasoning": sum(bool(row.reasoning) for row in self.rows),
        }


def _generate(
    ctx: StageContext[GenerateConfig],
    client: ChatClient,
    seeds: list[Seed],
    harvest: Harvest,
    pace: Pace,
) -> None:
    """Evolve group after group of seeds until there are rows enough, or no more are to be had."""
    config = ctx.config
    method = EvolInstruct(
        client,
        seed=config.seed,
        rounds=config.rounds,
        decoding=Decoding(config.teacher.temperature, config.teacher.max_tokens),
        on_step=pace.step,
        on_asked=pace.asked,
    )
    draw = 0
    while harvest.missing:
        before = len(harvest.rows)
        for event in _one_draw(method, harvest, seeds, draw, config):
            harvest.take(event)
            _warn_if_too_long(ctx, event)
            if not harvest.missing:
                break
        if len(harvest.rows) == before:
            _give_up(ctx, harvest, len(seeds))
            break
        draw += 1


def _one_draw(
    method: EvolInstruct, harvest: Harvest, seeds: list[Seed], draw: int, config: GenerateConfig
) -> Iterator[Made | Rejected]:
    """Take each seed through its rounds once, in groups no larger than the rows still missing.

    Chains do not depend on each other, so the size of the groups changes what is paid for, never
    the order or the content of the events.
    """
    position = 0
    while position < len(seeds):
        size = max(config.teacher.concurrency, -(-harvest.missing // config.rounds))
        for chain in method.evolve(seeds[position : position + size], draw):
            yield from chain.events
        position += size


def _give_up(ctx: StageContext[GenerateConfig], harvest: Harvest, seeds: int) -> None:
    counts = harvest.counts()
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts["rejected"].items())
    if not harvest.rows:
        raise StageError(
            f"the teacher made no usable row of {seeds} seeds (rejected: {reasons})",
            hint="a larger teacher, or a higher teacher.max_tokens where replies are truncated",
        )
    ctx.warn(
        f"{len(harvest.rows)} of {harvest.wanted} rows: a whole pass over the {seeds} seeds gave "
        f"nothing new (rejected: {reasons}); give more seeds or raise teacher.temperature"
    )


def _warn_if_too_long(ctx: StageContext[GenerateConfig], event: Made | Rejected) -> None:
    if isinstance(event, Rejected) and event.reason == "too long":
        ctx.warn(
            f"{event.seed.place}: round {event.round}: the prompt exceeds the teacher's context: "
            f"{event.detail}"
        )


def _shuffled(seeds: list[Seed], seed: int) -> list[Seed]:
    """Order the seeds at random, but so that a seed added later leaves the others in order."""
    return sorted(seeds, key=lambda item: (draw_number(seed, item.digest, "order"), item.digest))


def _row(made: Made, teacher: Mapping[str, str]) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": made.instruction},
        {"role": "assistant", "content": made.answer},
    ]
    if made.seed.system:
        messages.insert(0, {"role": "system", "content": made.seed.system})
    row = {"messages": messages}
    details: dict[str, Any] = {"operators": list(made.operators), "teacher": dict(teacher)}
    if made.reasoning:
        details["reasoning"] = made.reasoning
    provenance = provenance_column(row, [made.seed.provenance], method="evol-instruct", **details)
    return {**row, PROVENANCE: provenance}


def _reject(rejected: Rejected) -> dict[str, Any]:
    return {
        "reason": rejected.reason,
        "text": rejected.text,
        "operator": rejected.operator,
        "round": rejected.round,
        "seed": rejected.seed.digest,
        "detail": rejected.detail,
    }
