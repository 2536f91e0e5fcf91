"""Build one training set from one or several files of rows, and hold rows out of it.

Rows in any known format, or with columns named under `map`, are converted to one format. Unreadable
rows, blank rows, duplicates and rows over the token limit are rejected with a reason; columns that
no example uses are counted by name. The rest is split by random seed and content. Each row has its
id and the ids of the rows that it was made from in `llmpipe_provenance`. Rows made by a model are
never held out. `train` loses every row that leaks a held-out one: a row with the same question, one
that quotes the whole question, one that was generated from it over any number of steps, or one of
its group. A data set of the hub is one file of rows, chosen by `split` and `subset` if it has
several. Not covered: near-duplicates by meaning, splits of several files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import compress, count
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from llmpipe.contracts import (
    EstimateContext,
    Estimates,
    FieldPath,
    Finding,
    Input,
    Needs,
    Output,
    Ports,
    RandomSeed,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
)
from llmpipe.errors import EXCERPT, StageError
from llmpipe.formats import Example, FormatName, Labeled, Preference, Text
from llmpipe.formats.example import UNCHANGED, write_example
from llmpipe.formats.first_rows import Named, absent, named_columns
from llmpipe.formats.mapping import ColumnMap
from llmpipe.formats.turn import message_of
from llmpipe.needs import Given, Need, packages
from llmpipe.stages.format_leaks import duplicates, leaks
from llmpipe.stages.format_read import Reader, SourceRows, Told, listed
from llmpipe.stages.format_rows import TRAIN, Fates, Rejects, Rows
from llmpipe.stages.format_split import Parts, Split, shares_of, split_rows
from llmpipe.stages.format_write import write_part, write_rejects

SPLIT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[:([1-9][0-9]{0,8})\])?")
"""A split of a data set of the hub, or its first rows: ``train[:1000]``."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of several files that a training set is made of."""

    data: str
    """Rows to take: a file (JSONL, JSON, CSV, Parquet, Arrow), or a stage's records or dataset."""
    map: ColumnMap | None = None
    """The columns to read; known formats need none."""
    split: Annotated[str, msgspec.Meta(pattern=rf"^{SPLIT.pattern}$")] | None = None
    """The split to take of a data set of the hub, such as `train`, or its first rows:
    `train[:1000]`."""
    subset: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """The subset (configuration) to take of a data set of the hub that has several."""
    repeat: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How often each of the source's rows is repeated in `train` (never in held-out parts)."""
    sample: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Take only this many rows of the source, drawn by `random_seed`."""
    random_seed: RandomSeed = 0
    """Determines which rows `sample` draws."""

    def part(self) -> tuple[str | None, int | None]:
        """Return the split, and how many of its first rows to take; None means all."""
        found = SPLIT.fullmatch(self.split or "")
        return (found[1], int(found[2]) if found[2] else None) if found else (None, None)


class FormatConfig(StageConfig, frozen=True, kw_only=True):
    """The rows to convert, the format, and what to hold out."""

    data: str | None = None
    """Rows to take: a file (JSONL, JSON, CSV, Parquet, Arrow), or a stage's records or dataset."""
    map: ColumnMap | None = None
    """The columns of `data` to read; known formats need none."""
    sources: tuple[Source, ...] = ()
    """Several inputs instead of `data`, each with its own `map`, `repeat` and `sample`."""
    to: FormatName | Literal["unchanged"] = "messages"
    """The output format: `messages`, `sharegpt` and `alpaca` for conversations, `completion` for
    raw text, `preference` for pairs of answers (`rl: dpo` and reward models), `labeled` for answers
    labeled good or bad (KTO), `prompt` for prompts alone (GRPO). `unchanged` keeps all columns of
    rows in any format, also of those that no format knows."""
    split: Split | None = None
    """What to hold out as `eval` and `test`."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Reject rows with more tokens than this, counted with `tokenizer` and its chat template."""
    tokenizer: str | None = None
    """The model whose tokens `max_tokens` counts: the one that will be trained."""
    dedup: bool = True
    """Keep only the first of rows that differ only in case, white space and Unicode forms; with
    to: unchanged, of rows whose columns are all equal."""
    max_rejects: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    """The share of rows that may be unreadable, each rejected with its reason; above it, the stage
    fails. Blank rows, duplicates and leaks do not count."""
    unknown_columns: Literal["count", "error"] = "count"
    """What to do with columns and keys that no example uses: count them by name, or fail."""


class Format(StageDefaults, Estimates):
    """The stage kind ``format``."""

    Config = FormatConfig
    VERSION = 5
    determinism = "exact"
    cpus = 1

    @staticmethod
    def ports(config: FormatConfig) -> Ports:
        inputs = {}
        for path, source in _sources(config):
            split, _ = source.part()
            inputs[".".join(map(str, path))] = Input(
                path, source.data, ("records", "dataset"), split=split, subset=source.subset
            )
        if config.tokenizer:
            inputs["tokenizer"] = Input(("tokenizer",), config.tokenizer, ("model",))
        held = {part: Output("dataset", held_out=True) for part in shares_of(config.split)}
        outputs = {"train": Output("dataset"), **held, "rejects": Output("records")}
        return Ports(inputs, outputs, default="train")

    @staticmethod
    def problems(config: FormatConfig) -> list[tuple[FieldPath, str]]:
        found: list[tuple[FieldPath, str]] = []
        if bool(config.data) == bool(config.sources):
            found.append(((), "needs either `data` or `sources`"))
        if config.sources and config.map:
            found.append((("map",), "belongs to `data`; give each of the `sources` its own `map`"))
        for path, source in _sources(config):
            problem = source.map.problem() if source.map else None
            if problem:
                found.append(((*path[:-1], "map"), problem))
        if config.to == UNCHANGED:
            found += _unread(config)
        if config.max_tokens and not config.tokenizer:
            found.append((("max_tokens",), "needs `tokenizer`: the model that is to be trained"))
        if config.tokenizer and not config.max_tokens:
            found.append((("tokenizer",), "has no effect without `max_tokens`"))
        if config.split and not shares_of(config.split):
            found.append((("split",), "holds nothing out; set `eval` or `test`"))
        return found

    @staticmethod
    def review(config: FormatConfig, folder: Path) -> list[Finding]:
        """Check that the named columns exist."""
        found: list[Finding] = []
        for path, source in _sources(config):
            found += absent([source.data], named_columns((*path[:-1], "map"), source.map))
        group = config.split.group if config.split else None
        files = [source.data for _, source in _sources(config)]
        return [*found, *absent(files, [Named(("split", "group"), group, required=False)])]

    @staticmethod
    def tools(config: FormatConfig) -> tuple[str, ...]:
        return ("transformers",) if config.max_tokens else ()

    @staticmethod
    def needs(config: FormatConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return packages("transformers") if config.max_tokens else ()

    @staticmethod
    def estimate(
        config: FormatConfig, inputs: Mapping[str, Given], asked: EstimateContext
    ) -> Needs:
        from llmpipe.stages.document_estimates import format_estimate

        return format_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[FormatConfig]) -> StageResult:
        """Read, reject, split, write.

        Raises:
            StageError: A file cannot be read, too many rows are unreadable, or no row is left
                to train on or hold out.
        """
        rows, rejects, told = _read(ctx)
        fates = Fates(len(rows))
        if ctx.config.dedup:
            unread = ctx.config.to == UNCHANGED
            fates.give("duplicate", duplicates(rows, ctx.work, unread=unread))
        if ctx.config.max_tokens:
            fates.give(f"over {ctx.config.max_tokens} tokens", _too_long(ctx, rows, fates))
        parts = _split(ctx, rows, fates)
        leaks(rows, fates, [i for held in parts.held.values() for i in held])
        rejects.turn_away(rows, fates, parts.names())
        if not fates.count(TRAIN):
            raise _nothing_left(ctx, told.total, rejects)
        return _write(ctx, rows, fates, parts, rejects, told)


def _sources(config: FormatConfig) -> list[tuple[FieldPath, Source]]:
    """Return every source with the path of its reference inside the config."""
    if config.data:
        return [(("data",), Source(data=config.data, map=config.map))]
    return [(("sources", i, "data"), source) for i, source in enumerate(config.sources)]


def _unread(config: FormatConfig) -> Iterator[tuple[FieldPath, str]]:
    """Yield the fields that need to know what a row's columns mean."""
    for path, source in _sources(config):
        if source.map:
            yield (*path[:-1], "map"), "has no effect with to: unchanged"
    if config.max_tokens:
        yield ("max_tokens",), "has no effect with to: unchanged"
    if config.unknown_columns == "error":
        yield ("unknown_columns",), "has no effect with to: unchanged, which keeps all columns"


def _inputs(ctx: StageContext[FormatConfig]) -> list[SourceRows]:
    return [
        SourceRows(
            ctx.input(".".join(map(str, path))),
            source.map,
            source.sample,
            source.random_seed,
            source.part()[1],
        )
        for path, source in _sources(ctx.config)
    ]


def _labels(ctx: StageContext[FormatConfig]) -> list[str]:
    return [source.artifact.label for source in _inputs(ctx)]


def _read(ctx: StageContext[FormatConfig]) -> tuple[Rows, Rejects, Told]:
    reader = Reader(ctx.work, ctx.config.to, ctx.config.split)
    for number, source in enumerate(_inputs(ctx)):
        for done in reader.read(number, source):
            ctx.progress(done, note=f"reading {source.artifact.label}")
    if not reader.told.total:
        raise StageError(f"{', '.join(_labels(ctx))}: no rows at all")
    reader.told.check(ctx.config.max_rejects)
    if ctx.config.unknown_columns == "error":
        reader.told.refuse_left()
    told = reader.finish()
    for warning in told.warnings:
        ctx.warn(warning)
    return reader.rows, reader.rejects, told


def _too_long(ctx: StageContext[FormatConfig], rows: Rows, fates: Fates) -> Iterator[int]:
    """Yield the rows with more tokens than allowed."""
    from llmpipe.backends.huggingface.chat_tokens import render_chat, token_counts
    from llmpipe.backends.huggingface.inference import load_tokenizer

    tokenizer = load_tokenizer(ctx.input("tokenizer").path)
    raw, limit = ctx.config.to == "completion", ctx.config.max_tokens or 0
    selected, total = fates.of(TRAIN), fates.count(TRAIN)

    def texts() -> Iterator[str]:
        for done, position in enumerate(compress(count(), selected)):
            if done % 1000 == 0:
                ctx.progress(done, total, "counting tokens")
            example = rows.example(position)
            if raw:
                yield str(write_example(example, "completion").row["text"])
            else:
                yield max((render_chat(tokenizer, c, tools=t) for c, t in _chats(example)), key=len)

    tokens = zip(compress(count(), selected), token_counts(tokenizer, texts()), strict=True)
    return (position for position, number in tokens if number > limit)


def _chats(example: Example) -> list[tuple[list[dict[str, Any]], list[Any] | None]]:
    """Return the chats that a model reads of an example: one for each of its answers."""
    if isinstance(example, Text):
        return [([message_of(turn) for turn in example.said()], None)]
    answers: list[list[Any]] = [[]]
    if isinstance(example, Preference):
        answers = [[example.chosen], [example.rejected]]
    elif isinstance(example, Labeled):
        answers = [[example.completion]]
    return [
        ([message_of(turn) for turn in (*example.turns, *answer)], example.tools)
        for answer in answers
    ]


def _split(ctx: StageContext[FormatConfig], rows: Rows, fates: Fates) -> Parts:
    labels = _labels(ctx)

    def describe(position: int) -> str:
        words = rows.words(position).decode("utf-8", "replace")
        quoted = words if len(words) <= EXCERPT else f"{words[:EXCERPT]}…"
        return f'"{quoted}" ({labels[rows.source(position)]}:{rows.line(position)})'

    parts = split_rows(ctx.config.split, rows, fates, describe)
    for warning in parts.warnings:
        ctx.warn(warning)
    return parts


def _nothing_left(ctx: StageContext[FormatConfig], total: int, rejects: Rejects) -> StageError:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in rejects.counts().items())
    kept_out = total - len(rejects)
    held = f"; held out: {kept_out}" if kept_out else ""
    return StageError(
        f"no row is left to train on, of {total} from {', '.join(_labels(ctx))}",
        hint=f"rejected: {reasons or 'none'}{held}",
    )


def _write(
    ctx: StageContext[FormatConfig],
    rows: Rows,
    fates: Fates,
    split: Parts,
    rejects: Rejects,
    told: Told,
) -> StageResult:
    parts = split.names()
    outputs = {part: ctx.out / f"{part}.jsonl" for part in (*parts, "rejects")}
    repeats = [source.repeat for _, source in _sources(ctx.config)]
    written = write_part(outputs[TRAIN], rows, fates.of(TRAIN), ctx.config.to, repeats)
    for part in split.held:
        write_part(outputs[part], rows, fates.of(part), ctx.config.to)
    kept = {part: fates.count(part) for part in parts}
    # Sources by their position in the config: renaming a stage must not change the artifact.
    places = [".".join(map(str, path)) for path, _ in _sources(ctx.config)]
    write_rejects(outputs["rejects"], rejects, places, _inputs(ctx))
    metrics = {
        "in": told.total,
        "kept": kept,
        "dropped": rejects.counts(),
        "generated": sum(compress(rows.generated, fates.of(TRAIN))),
    }
    left = told.left_behind()
    if left:
        metrics["left_behind"] = left
    if written != kept[TRAIN]:
        metrics["train_with_repeats"] = written
    if split.short:
        metrics["too_few"] = split.short
    return StageResult(outputs, metrics, _summary(kept, split, rejects, told))


def _summary(kept: Mapping[str, int], split: Parts, rejects: Rejects, told: Told) -> str:
    """Summarize in one line how many rows each output got."""
    parts = ", ".join(
        f"{number} {part}" + (f" ({split.short[part]} too few)" if part in split.short else "")
        for part, number in kept.items()
    )
    reasons = ", ".join(f"{count} {reason}" for reason, count in rejects.counts().items())
    left = told.left_behind()
    return (
        f"{told.total} rows: {parts}"
        + (f"; rejected: {reasons}" if reasons else "")
        + (f"; left behind: {listed(left)}" if left else "")
    )
