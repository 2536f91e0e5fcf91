"""Make one training set of one or several files of rows, and hold rows out of it.

Rows in any known format, or with columns named under `map`, become rows of one format. Blank
rows, duplicates and rows over the token limit are rejected; the rest is split by seed and content.
Rows made by a model (those with the `provenance` that `generate` writes) are never held out, and
`train` loses every row that gives a held-out one away: the same question, the question quoted
whole, a row generated from it, or one of its group. A data set of a hub is one file of rows. Not
covered: near-duplicates by meaning, the splits of such a set, Parquet.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import msgspec

from llmpipe.contracts import (
    Artifact,
    FieldPath,
    Finding,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
)
from llmpipe.errors import EXCERPT, StageError
from llmpipe.formats import FormatName, Message, RowError, from_chat
from llmpipe.formats.entry import Entry, Rejects
from llmpipe.formats.first_rows import Named, absent, named_columns
from llmpipe.formats.leakage import QuotedQuestions, content_key, question_key, question_words
from llmpipe.formats.mapping import ColumnMap, read_chat
from llmpipe.formats.message import UnusableRowError, expecting
from llmpipe.formats.provenance import PROVENANCE, is_unclear, source_digest
from llmpipe.formats.records import (
    Row,
    WrittenFloat,
    from_json,
    read_rows,
    row_digest,
    to_json,
    write_rows,
)
from llmpipe.needs import Given, Need, packages
from llmpipe.stages.format_split import Groups, Parts, Split, shares_of, split_rows


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of several files that a training set is made of."""

    data: str
    """Rows to take: a file (JSONL, JSON or CSV), or a stage's records or dataset."""
    map: ColumnMap | None = None
    """Which columns hold the question and the answer, or the text; known formats need none."""
    repeat: Annotated[int, msgspec.Meta(ge=1)] = 1
    """How many times each of the source's rows stands in `train` (never in what is held out)."""
    sample: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Take only this many rows of the source, drawn by `seed`."""
    seed: int = 0
    """Which rows `sample` draws."""


class FormatConfig(StageConfig, frozen=True, kw_only=True):
    """Rows from `data` or several `sources` to one training set, and what is held out of it."""

    data: str | None = None
    """Rows to take: a file (JSONL, JSON or CSV), or a stage's records or dataset."""
    map: ColumnMap | None = None
    """Which columns of `data` hold the question and the answer, or the text."""
    sources: tuple[Source, ...] = ()
    """Several inputs instead of `data`, each with its own `map`, `repeat` and `sample`."""
    to: FormatName = "messages"
    """The format of the rows that come out."""
    split: Split | None = None
    """What to hold out as `eval` and `test`."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Reject rows with more tokens than this, counted with `tokenizer` and its chat template."""
    tokenizer: str | None = None
    """The model whose tokens `max_tokens` counts: the one that will be trained."""
    dedup: bool = True
    """Keep the first of rows that differ in nothing but case, white space and Unicode forms."""


class Format(StageDefaults):
    """See the module's docstring."""

    Config = FormatConfig
    VERSION = 2
    determinism = "exact"
    cpus = 1

    @staticmethod
    def ports(config: FormatConfig) -> Ports:
        inputs = {
            ".".join(map(str, path)): Input(path, source.data, ("records", "dataset"))
            for path, source in _sources(config)
        }
        if config.tokenizer:
            inputs["tokenizer"] = Input(("tokenizer",), config.tokenizer, ("model",))
        outputs = {part: Output("dataset") for part in ("train", *shares_of(config.split))}
        return Ports(inputs, {**outputs, "rejects": Output("records")}, default="train")

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
        if config.max_tokens and not config.tokenizer:
            found.append((("max_tokens",), "needs `tokenizer`: the model that is to be trained"))
        if config.tokenizer and not config.max_tokens:
            found.append((("tokenizer",), "has no effect without `max_tokens`"))
        if config.split and not shares_of(config.split):
            found.append((("split",), "holds nothing out; set `eval` or `test`"))
        return found

    @staticmethod
    def review(config: FormatConfig, folder: Path) -> list[Finding]:
        """Look for the columns that are named."""
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
    def run(ctx: StageContext[FormatConfig]) -> StageResult:
        """Read, reject, split, write.

        Raises:
            StageError: a file or row cannot be read, or nothing is left to train on or hold out.
        """
        rejects = Rejects()
        rows = _read(ctx, rejects)
        total = len(rows) + len(rejects)
        if ctx.config.dedup:
            rows = _without_duplicates(rows, rejects)
        if ctx.config.max_tokens:
            rows = _within_limit(ctx, rows, rejects, ctx.config.max_tokens)
        parts = _split(ctx, rows)
        parts.rows["train"] = _without_leaks(ctx, parts.rows, rejects)
        if not parts.rows["train"]:
            raise _nothing_left(ctx, total, rejects)
        return _write(ctx, parts, rejects, total)


def _sources(config: FormatConfig) -> list[tuple[FieldPath, Source]]:
    """Give every source with the path of its reference inside the config."""
    if config.data:
        return [(("data",), Source(data=config.data, map=config.map))]
    return [(("sources", i, "data"), source) for i, source in enumerate(config.sources)]


def _labels(ctx: StageContext[FormatConfig]) -> list[str]:
    return [ctx.input(".".join(map(str, path))).label for path, _ in _sources(ctx.config)]


def _read(ctx: StageContext[FormatConfig], rejects: Rejects) -> list[Entry]:
    rows: list[Entry] = []
    groups = Groups(ctx.config.split)
    for index, (path, source) in enumerate(_sources(ctx.config)):
        artifact = ctx.input(".".join(map(str, path)))
        system = source.map.system if source.map else None
        found = expecting(_rows(artifact), system, artifact.label)
        unclear: list[int] = []
        for line, row in _sampled(ctx, found, source, artifact.label):
            try:
                entry = _examine(row, index, line, source, ctx.config)
                entry.group = groups.of(row, artifact.label, line, generated=entry.generated)
                rows.append(entry)
                if is_unclear(row):
                    unclear.append(line)
            except UnusableRowError as error:
                rejects.add(index, line, error.reason, _packed(row))
            except RowError as error:
                place = f"{artifact.label}:{line}"
                raise StageError(f"{place}: {error.message}", hint=error.hint) from None
            if len(rows) % 10_000 == 0:
                ctx.progress(len(rows), note=f"reading {artifact.label}")
        _warn_of_unclear(ctx, artifact.label, unclear)
    groups.check()
    for warning in groups.warnings():
        ctx.warn(warning)
    if not rows and not len(rejects):
        raise StageError(f"{', '.join(_labels(ctx))}: no rows at all")
    return rows


def _rows(artifact: Artifact) -> Iterator[tuple[int, Row]]:
    """Yield the rows; an answer ``1.10`` stays one, as it does where training reads it."""
    return read_rows(artifact.path, artifact.label, floats=WrittenFloat)


def _packed(row: Row) -> bytes:
    return to_json(row).encode("utf-8")


def _warn_of_unclear(ctx: StageContext[FormatConfig], label: str, lines: Sequence[int]) -> None:
    if lines:
        ctx.warn(
            f"{label}: {len(lines)} rows (the first in line {lines[0]}) have a column "
            f"{PROVENANCE!r} that resembles what `generate` writes, but names no source row by a "
            "SHA-256 `seed`: they count as rows that no model made, and may be held out"
        )


def _sampled(
    ctx: StageContext[FormatConfig], rows: Iterator[tuple[int, Row]], source: Source, label: str
) -> Iterable[tuple[int, Row]]:
    """Draw rows by a hash of seed and content, so that their order does not matter."""
    if source.sample is None:
        return rows

    def draw(numbered: tuple[int, Row]) -> tuple[bytes, int]:
        text = b"%d:%b" % (source.seed, _packed(numbered[1]))
        return blake2b(text, digest_size=16).digest(), numbered[0]

    drawn = heapq.nsmallest(source.sample, rows, key=draw)
    if len(drawn) < source.sample:
        ctx.warn(f"{label}: sample asks for {source.sample} rows; it has {len(drawn)}")
    return sorted(drawn, key=lambda numbered: numbered[0])


def _examine(row: Row, index: int, line: int, source: Source, config: FormatConfig) -> Entry:
    chat = read_chat(row, source.map)
    from_chat(chat, config.to)  # what the format cannot hold is an error at this row
    seed = source_digest(row)
    return Entry(
        source=index,
        line=line,
        packed=_packed(row),
        content=content_key(chat) if config.dedup else b"",
        question=question_key(question_words(chat)),
        group=None,
        generated=seed is not None,
        seed=seed,
    )


def _without_duplicates(rows: list[Entry], rejects: Rejects) -> list[Entry]:
    """Keep the first of equal rows; a generated one gives way to one that is not."""
    first: dict[bytes, Entry] = {}
    for row in rows:
        holder = first.get(row.content)
        if holder is None or (holder.generated and not row.generated):
            first[row.content] = row
    reasons = (None if first[row.content] is row else "duplicate" for row in rows)
    return rejects.partition(rows, reasons)


def _within_limit(
    ctx: StageContext[FormatConfig], rows: list[Entry], rejects: Rejects, limit: int
) -> list[Entry]:
    from llmpipe.backends.huggingface.chat_tokens import render_chat, token_counts
    from llmpipe.backends.huggingface.inference import load_tokenizer

    tokenizer = load_tokenizer(ctx.input("tokenizer").path)
    sources = [source for _, source in _sources(ctx.config)]
    raw = ctx.config.to == "completion"

    def texts() -> Iterator[str]:
        for done, row in enumerate(rows):
            if done % 1000 == 0:
                ctx.progress(done, len(rows), "counting tokens")
            chat = _chat(row, sources)
            yield (
                str(from_chat(chat, "completion")["text"]) if raw else render_chat(tokenizer, chat)
            )

    reason = f"over {limit} tokens"
    counts = token_counts(tokenizer, texts())
    return rejects.partition(rows, (reason if count > limit else None for count in counts))


def _chat(row: Entry, sources: Sequence[Source]) -> list[Message]:
    return read_chat(from_json(row.packed), sources[row.source].map)


def _split(ctx: StageContext[FormatConfig], rows: list[Entry]) -> Parts:
    sources = [source for _, source in _sources(ctx.config)]
    labels = _labels(ctx)

    def describe(row: Entry) -> str:
        words = " ".join(question_words(_chat(row, sources)))
        quoted = words if len(words) <= EXCERPT else f"{words[:EXCERPT]}…"
        return f'"{quoted}" ({labels[row.source]}:{row.line})'

    parts = split_rows(ctx.config.split, rows, describe)
    for warning in parts.warnings:
        ctx.warn(warning)
    return parts


def _without_leaks(
    ctx: StageContext[FormatConfig], parts: dict[str, list[Entry]], rejects: Rejects
) -> list[Entry]:
    held = [row for part, rows in parts.items() if part != "train" for row in rows]
    if not held:
        return parts["train"]
    sources = [source for _, source in _sources(ctx.config)]
    questions = {row.question for row in held}
    groups = {row.group for row in held} - {None}
    digests = {row_digest(from_json(row.packed)) for row in held}
    quoted = QuotedQuestions(question_words(_chat(row, sources)) for row in held)

    def reason(row: Entry) -> str | None:
        if row.seed in digests:
            return "generated from a held-out row"
        if row.group in groups:
            return "in a held-out group"
        if row.question in questions:
            return "repeats a held-out question"
        if quoted.quoted_in(question_words(_chat(row, sources))):
            return "quotes a held-out question"
        return None

    return rejects.partition(parts["train"], map(reason, parts["train"]))


def _nothing_left(ctx: StageContext[FormatConfig], total: int, rejects: Rejects) -> StageError:
    reasons = ", ".join(f"{reason}: {count}" for reason, count in rejects.counts().items())
    kept_out = total - len(rejects)
    held = f"; held out: {kept_out}" if kept_out else ""
    return StageError(
        f"no row is left to train on, of {total} from {', '.join(_labels(ctx))}",
        hint=f"rejected: {reasons or 'none'}{held}",
    )


def _write(
    ctx: StageContext[FormatConfig], split: Parts, rejects: Rejects, total: int
) -> StageResult:
    parts = split.rows
    sources = [source for _, source in _sources(ctx.config)]
    # Sources by their place in the config: a renamed stage must leave the artifact as it was.
    places = [".".join(map(str, path)) for path, _ in _sources(ctx.config)]

    def formatted(rows: Iterable[Entry]) -> Iterator[dict[str, Any]]:
        return (from_chat(_chat(row, sources), ctx.config.to) for row in rows)

    outputs = {part: ctx.out / f"{part}.jsonl" for part in (*parts, "rejects")}
    written = {
        part: write_rows(
            outputs[part], formatted(_repeated(rows, sources) if part == "train" else rows)
        )
        for part, rows in parts.items()
    }
    write_rows(outputs["rejects"], (_reject(places, *reject) for reject in sorted(rejects.rows)))
    metrics = {
        "in": total,
        "kept": {part: len(rows) for part, rows in parts.items()},
        "dropped": rejects.counts(),
        "generated": sum(row.generated for row in parts["train"]),
    }
    if written["train"] != len(parts["train"]):
        metrics["train_with_repeats"] = written["train"]
    if split.short:
        metrics["too_few"] = split.short
    return StageResult(outputs, metrics, _summary(total, split, rejects))


def _summary(total: int, split: Parts, rejects: Rejects) -> str:
    """Say in a line where the rows went."""
    kept = ", ".join(
        f"{len(rows)} {part}" + (f" ({split.short[part]} too few)" if part in split.short else "")
        for part, rows in split.rows.items()
    )
    reasons = ", ".join(f"{count} {reason}" for reason, count in rejects.counts().items())
    return f"{total} rows: {kept}" + (f"; rejected: {reasons}" if reasons else "")


def _repeated(rows: Sequence[Entry], sources: Sequence[Source]) -> Iterator[Entry]:
    """Give the rows once, then those to be repeated again, and so on: copies stand far apart."""
    for turn in range(max(source.repeat for source in sources)):
        yield from (row for row in rows if sources[row.source].repeat > turn)


def _reject(
    places: Sequence[str], source: int, line: int, reason: str, packed: bytes
) -> dict[str, Any]:
    return {
        "source": places[source],
        "line": line,
        "reason": reason,
        "row": msgspec.Raw(packed),
    }
