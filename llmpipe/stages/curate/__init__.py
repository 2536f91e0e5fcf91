"""Drop rows that are not worth training on: near-duplicates, leaks, and what other steps find.

The steps run in the order in which the spec lists them, each on the rows that the steps before it
left. A row that is kept keeps its columns, and says in `llmpipe_provenance` which one it is. A row
that is dropped is written to `rejects` with the step, the rule, what it found, its score, the row
that it was compared with, and how to keep it. The order of the input rows changes nothing: the same
rows are kept.

Curating is a kind of its own, and not a part of `format`, because it takes and gives rows of any
format. It can run before rows are split, and on the training rows afterwards.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llmpipe.contracts import (
    Artifact,
    EstimateContext,
    Estimates,
    FieldPath,
    Finding,
    Input,
    Needs,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
)
from llmpipe.errors import StageError
from llmpipe.formats import RowError
from llmpipe.formats.bad_line import BadLine
from llmpipe.formats.first_rows import Named, absent
from llmpipe.formats.records import to_json
from llmpipe.needs import Given, Need, packages
from llmpipe.stages.curate.pool import EVERY, Pool
from llmpipe.stages.curate.rows import Rows
from llmpipe.stages.curate.steps import (
    Balance,
    Decontaminate,
    Encoding,
    Language,
    Length,
    NearDuplicates,
    Refusals,
    Repetition,
    Schema,
    Secrets,
    Step,
)
from llmpipe.stages.format_read import SourceRows, Told, rows_of

WORDS = ("numpy", "regex")
"""Packages that every step needs."""

TOOLS: Mapping[type, str] = {
    NearDuplicates: "rensa",
    Language: "lingua-language-detector",
    Schema: "jsonschema",
}
"""The package whose version decides what a step drops."""


class CurateConfig(StageConfig, frozen=True, kw_only=True):
    """The rows to curate, and the steps to take."""

    data: str | tuple[str, ...]
    """Rows to take: a file (JSONL, JSON, CSV, Parquet, Arrow), a stage's records or dataset, or
    several of them."""
    columns: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    """The columns whose texts are looked at. By default, what the row's format says: the turns of a
    conversation, a text, a prompt and its answers. Named columns do not say which of them answers:
    `refusals` and `min_answer_words` need rows of a format."""
    steps: Annotated[tuple[Step, ...], Meta(min_length=1)]
    """The steps, in their order. Each has a `step`, which selects its other fields."""
    max_rejects: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """The share of rows that may be unreadable, each rejected with its reason; above it, the stage
    fails. Rows that steps drop do not count."""


class Curate(StageDefaults, Estimates):
    """The stage kind ``curate``."""

    Config = CurateConfig
    VERSION = 1
    determinism = "exact"
    cpus = 1

    @staticmethod
    def ports(config: CurateConfig) -> Ports:
        inputs = {
            _port(path): Input(path, value, ("records", "dataset"))
            for path, value in _sources(config)
        }
        for path, value in _held_out(config):
            inputs[_port(path)] = Input(path, value, ("records", "dataset"), compared=True)
        return Ports(inputs, {"rows": Output("records"), "rejects": Output("records")}, "rows")

    @staticmethod
    def problems(config: CurateConfig) -> list[tuple[FieldPath, str]]:
        found: list[tuple[FieldPath, str]] = []
        if config.data in ("", ()):
            found.append((("data",), "names no rows"))
        for number, step in enumerate(config.steps):
            found += ((("steps", number, name), told) for name, told in step.problems())
            field = _of_answers(step) if config.columns else None
            if field is not None:
                told = "asks which texts are answers, and `columns` does not say it"
                found.append((("steps", number, field), told))
        return found

    @staticmethod
    def review(config: CurateConfig, folder: Path) -> list[Finding]:
        """Check that the named columns exist."""
        files = [value for _, value in _sources(config)]
        named = [Named(("columns", i), name) for i, name in enumerate(config.columns)]
        for number, step in enumerate(config.steps):
            column = step.column if isinstance(step, Schema | Balance) else None
            named.append(Named(("steps", number, "column"), column, required=False))
        return [*absent(files, named)]

    @staticmethod
    def tools(config: CurateConfig) -> tuple[str, ...]:
        used = (TOOLS.get(type(step)) for step in config.steps)
        return tuple(dict.fromkeys(filter(None, used)))

    @staticmethod
    def needs(config: CurateConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return packages(*WORDS, *Curate.tools(config))

    @staticmethod
    def estimate(
        config: CurateConfig, inputs: Mapping[str, Given], asked: EstimateContext
    ) -> Needs:
        from llmpipe.stages.document_estimates import curate_estimate

        return curate_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[CurateConfig]) -> StageResult:
        """Read the rows, take the steps, write what is left.

        Raises:
            StageError: A file cannot be read, too many rows are unreadable, or no row is left.
        """
        outputs = {"rows": ctx.out / "rows.jsonl", "rejects": ctx.out / "rejects.jsonl"}
        with outputs["rejects"].open("wb") as rejects:
            pool = Pool(
                Rows(ctx.work, ctx.config.columns),
                [".".join(map(str, path)) for path, _ in _sources(ctx.config)],
                rejects,
                ctx.work,
                ctx.progress,
            )
            told = _read(ctx, pool)
            steps = [_take(ctx, number, step, pool) for number, step in enumerate(ctx.config.steps)]
        if not pool.kept:
            raise _nothing_left(ctx, told.total, pool)
        with outputs["rows"].open("wb") as file:
            file.writelines(pool.rows.texts(pool.kept))
        dropped = dict(sorted(pool.counts.items()))
        metrics = {
            "in": told.total, "kept": len(pool.kept), "dropped": dropped, "steps": steps
        }  # fmt: skip
        return StageResult(outputs, metrics, _summary(metrics))


def _of_answers(step: Step) -> str | None:
    """Return the field by which a step looks at answers alone."""
    if isinstance(step, Refusals):
        return "step"
    return "min_answer_words" if isinstance(step, Length) and step.min_answer_words else None


def _port(path: FieldPath) -> str:
    return ".".join(map(str, path))


def _sources(config: CurateConfig) -> list[tuple[FieldPath, str]]:
    """Return every source with the path of its reference inside the config."""
    if isinstance(config.data, str):
        return [(("data",), config.data)]
    return [(("data", number), value) for number, value in enumerate(config.data)]


def _held_out(config: CurateConfig) -> Iterator[tuple[FieldPath, str]]:
    """Yield the held-out rows of every step, each with the path of its reference."""
    for number, step in enumerate(config.steps):
        if isinstance(step, Decontaminate):
            for place, value in enumerate(step.against):
                yield ("steps", number, "against", place), value


def _read(ctx: StageContext[CurateConfig], pool: Pool) -> Told:
    """Read all rows; those that cannot be read are rejected."""
    told, rows = Told(), pool.rows
    for number, (path, _) in enumerate(_sources(ctx.config)):
        artifact = ctx.input(_port(path))

        def refuse(bad: BadLine, number: int = number) -> None:
            told.total += 1
            _note(told, bad.error.message, bad.error)
            pool.drop_line(number, bad)

        for line, row in rows_of(SourceRows(artifact, None, None, 0), refuse):
            if told.total % EVERY == 0:
                ctx.progress(told.total, note=f"reading {artifact.label}")
            try:
                rows.add(row, number, line)
            except RowError as error:
                refuse(BadLine(line, to_json(row), _placed(ctx, error, artifact, line)))
            else:
                told.total += 1
    rows.store()
    if not told.total:
        raise StageError(f"{_labels(ctx)}: no rows at all")
    told.check(ctx.config.max_rejects)
    pool.kept = array("Q", range(len(rows)))
    return told


def _placed(
    ctx: StageContext[CurateConfig], error: RowError, artifact: Artifact, line: int
) -> RowError:
    message = f"{artifact.label}:{line}: {error.message}"
    columns = None if ctx.config.columns else "name the columns with text under `columns`"
    hints = "\n".join(filter(None, (error.hint, columns)))
    return RowError(message, hint=hints or None, reason=error.reason)


def _note(told: Told, message: str, error: RowError) -> None:
    told.odd[error.reason] += 1
    told.first.setdefault(error.reason, (message, error.hint))


def _take(ctx: StageContext[CurateConfig], number: int, step: Step, pool: Pool) -> dict[str, Any]:
    """Take one step; return its metrics."""
    from llmpipe.stages.curate import (
        balance,
        damage,
        decontaminate,
        filters,
        languages,
        near_duplicates,
        secrets,
    )

    pool.step = number
    before = len(pool.kept)
    match step:
        case NearDuplicates():
            found = near_duplicates.run(step, pool)
        case Decontaminate():
            ports = [_port(path) for path, _ in _held_out(ctx.config) if path[1] == number]
            held = {port: ctx.input(port) for port in ports}
            found = decontaminate.run(step, pool, held, ctx.config.columns)
        case Length():
            found = filters.length(step, pool)
        case Encoding():
            found = damage.run(step, pool)
        case Repetition():
            found = filters.repetition(step, pool)
        case Refusals():
            found = filters.refusals(step, pool)
        case Language():
            found = languages.run(step, pool)
        case Secrets():
            found = secrets.run(step, pool)
        case Schema():
            found = filters.schema(step, pool)
        case Balance():
            found = balance.run(step, pool)
    name = str(msgspec.to_builtins(step)["step"])
    return {"step": name, "dropped": before - len(pool.kept), **found}


def _nothing_left(ctx: StageContext[CurateConfig], total: int, pool: Pool) -> StageError:
    return StageError(
        f"no row is left, of {total} from {_labels(ctx)}", hint=f"dropped: {_listed(pool.counts)}"
    )


def _labels(ctx: StageContext[CurateConfig]) -> str:
    return ", ".join(ctx.input(_port(path)).label for path, _ in _sources(ctx.config))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {rule}" for rule, count in sorted(counts.items())) or "none"


def _summary(metrics: Mapping[str, Any]) -> str:
    return "; ".join(_lines(metrics))


def _lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    yield f"{metrics['in']} rows: {metrics['kept']} kept"
    yield f"dropped: {_listed(metrics['dropped'])}"
    for step in metrics["steps"]:
        if "threshold" in step and (words := step["threshold"]["median_different_words"]):
            may = step["threshold"]["words_that_may_differ"]
            yield f"at {step['threshold']['score']:g}, {may} of {words} words may differ"
        if step.get("not_compared"):
            yield f"{step['not_compared']} resemble too many rows to be compared with all of them"
        if step.get("redacted"):
            yield f"{step['redacted']} were redacted"
        if step.get("too_short_to_tell"):
            yield f"{step['too_short_to_tell']} are too short to tell their language"
        if "held_out" in step:
            yield f"{step['held_out_found']} of {step['held_out']} held-out rows were given away"
        if step.get("held_out_not_compared"):
            yield f"{step['held_out_not_compared']} have no words of their own to compare"
        if step.get("left_out"):
            yield f"{len(step['left_out'])} shared texts were not compared"
