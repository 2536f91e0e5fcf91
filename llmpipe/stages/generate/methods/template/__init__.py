"""Template: rows of columns that are drawn at random, made from others, or asked of the teacher.

Each row draws its categories, numbers, dates and names from (random seed, row, column) alone, so
that neither the order of the columns nor that of the seeds changes a value. Columns that depend on
others come after them. Templates are Jinja in a sandbox, in which loops end (`sandbox`). A row that
fails a validator is rejected, and the next one takes its place.

Without seeds, rows are numbered and never run out. With seeds, each seed makes a row in every pass.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from llmpipe.errors import StageError, did_you_mean
from llmpipe.formats.json_schema import json_value, mismatch
from llmpipe.formats.provenance import PROVENANCE, Provenance, read_provenance
from llmpipe.formats.records import read_rows, row_digest
from llmpipe.formats.row import RowError
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.judge import Judging
from llmpipe.stages.generate.methods.template.columns import (
    Column,
    needed_columns,
    order_of,
    written_by_teacher,
)
from llmpipe.stages.generate.methods.template.config import TemplateConfig, unknown_column
from llmpipe.stages.generate.methods.template.sandbox import Template
from llmpipe.stages.generate.methods.template.validators import (
    as_text,
    failed_test,
    load_function,
)
from llmpipe.stages.generate.protocol import GeneratedRow, MethodContext, Reject
from llmpipe.stages.generate.replies import Messages, without_answer
from llmpipe.stages.generate.text import draw_number

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply

PASS = 200
"""Rows of a pass without seeds."""

MOST_AT_ONCE = 1024
"""Rows of one batch, at most."""


@dataclass(frozen=True, slots=True)
class _Seed:
    """A row of the seeds."""

    key: str
    place: str
    columns: Mapping[str, Any]
    made_from: tuple[Provenance, ...]


@dataclass(slots=True)
class _Row:
    """A row on its way through its columns; ``reject`` is set as soon as one fails."""

    seed: _Seed
    number: int
    columns: dict[str, Any]
    reasoning: list[str] = field(default_factory=list)
    judged: dict[str, Any] = field(default_factory=dict)
    reject: Reject | None = None

    def fail(self, step: str, reason: str, text: str, detail: str = "") -> None:
        seed = self.seed
        self.reject = Reject(
            reason, text, seed.place, seed.made_from, step, self.number + 1, detail
        )


class TemplateMethod:
    """The method ``template``."""

    Config = TemplateConfig

    def __init__(self, ctx: MethodContext[TemplateConfig]) -> None:
        config = self.config = ctx.config
        self.missing = ctx.missing
        self.order = order_of(config.columns)
        self.templates = {
            (name, kind): Template(text)
            for name, column in config.columns.items()
            for kind, text in column.templates()
        }
        self.written = {name: Template(text) for name, text in (config.row or {}).items()}
        self.by_teacher = written_by_teacher(config.columns)
        self.seeds = self._read_seeds(ctx) if config.seeds else None
        self.material = f"{len(self.seeds)} seeds" if self.seeds else "templates"
        inputs = ctx.inputs
        self.functions = {
            index: load_function(inputs[port].path, inputs[port].label)
            for index, validator in enumerate(config.validators)
            if validator.python and (port := f"validators.{index}.python")
        }
        self.judges = {
            index: Judging(validator.judge, config.random_seed, ctx.warn)
            for index, validator in enumerate(config.validators)
            if validator.judge
        }

    def known_questions(self) -> Iterable[str]:
        return ()

    def metrics(self) -> Mapping[str, Any]:
        told: dict[str, Any] = {} if self.seeds is None else {"seeds": len(self.seeds)}
        judges = {f"validator {i + 1}": each.metrics() for i, each in self.judges.items()}
        return told | ({"judges": judges} if judges else {})

    def draw(self, teacher: Teacher, number: int) -> Iterator[GeneratedRow | Reject]:
        """Make a row of each seed, or `PASS` rows, in batches no larger than are missing."""
        waiting = self._seeds_of(number)
        while True:
            size = min(self.config.batch_size(self.missing()), MOST_AT_ONCE)
            rows = [_Row(seed, number, dict(seed.columns)) for seed in islice(waiting, size)]
            if not rows:
                return
            for name in self.order:
                self._fill(teacher, name, [row for row in rows if row.reject is None])
            for index in range(len(self.config.validators)):
                self._validate(teacher, index, [row for row in rows if row.reject is None])
            for row in rows:
                yield row.reject or self._result(row)

    def _seeds_of(self, number: int) -> Iterator[_Seed]:
        if self.seeds is not None:
            yield from self.seeds
            return
        for index in range(number * PASS, (number + 1) * PASS):
            yield _Seed(str(index), f"row {index + 1}", {}, ())

    def _fill(self, teacher: Teacher, name: str, rows: Sequence[_Row]) -> None:
        """Make a column of all rows."""
        column = self.config.columns[name]
        if column.prompt is not None:
            self._ask(teacher, name, column, rows)
            return
        for row in rows:
            try:
                if column.template is not None:
                    row.columns[name] = self.templates[name, "template"].render(row.columns)
                else:
                    chance = random.Random(self._number(row, name))
                    row.columns[name] = column.sample(chance, row.columns)
            except StageError as error:
                field = f"columns.{name}" + (".template" if column.template is not None else "")
                self._failed(row, field, name, error, needed_columns(column))

    def _ask(self, teacher: Teacher, name: str, column: Column, rows: Sequence[_Row]) -> None:
        asked = [(row, self._messages(row, name, column)) for row in rows]
        asked = [(row, messages) for row, messages in asked if row.reject is None]
        requests = [
            teacher.request(
                messages, seed=self._number(row, name), draw=row.number, schema=column.schema
            )
            for row, messages in asked
        ]
        later = self.order[self.order.index(name) + 1 :]
        after = len(asked) * sum(self.config.columns[each].prompt is not None for each in later)
        replies = teacher.ask(f"asking for {name}", requests, after)
        for (row, _), reply in zip(asked, replies, strict=True):
            _read(row, name, column, reply)

    def _messages(self, row: _Row, name: str, column: Column) -> Messages:
        turns = []
        if column.system is not None and (system := self._rendered(row, name, "system").strip()):
            turns.append({"role": "system", "content": system})
        return [*turns, {"role": "user", "content": self._rendered(row, name, "prompt")}]

    def _rendered(self, row: _Row, name: str, kind: str) -> str:
        try:
            return self.templates[name, kind].render(row.columns)
        except StageError as error:
            reads = self.templates[name, kind].reads
            self._failed(row, f"columns.{name}.{kind}", name, error, reads)
            return ""

    def _failed(
        self, row: _Row, place: str, step: str, error: StageError, reads: Collection[str]
    ) -> None:
        """Reject a row that a reply spoils; raise what the spec is to blame for."""
        if self.by_teacher.isdisjoint(reads):
            raise _at(row, place, error) from None
        row.fail(step, "template", as_text(row.columns), error.message)

    def _number(self, row: _Row, name: str) -> int:
        return draw_number(self.config.random_seed, row.seed.key, row.number, name)

    def _validate(self, teacher: Teacher, index: int, rows: Sequence[_Row]) -> None:
        """Reject the rows that fail a validator."""
        validator = self.config.validators[index]
        step = f"validator {index + 1}"
        if judging := self.judges.get(index):
            column = validator.column or ""
            texts = [as_text(row.columns[column]) for row in rows]
            for row, rating in zip(rows, judging.rate(teacher, texts), strict=True):
                if failed := judging.reject(rating):
                    row.fail(step, failed[0], as_text(row.columns[column]), failed[1])
                else:
                    row.judged[column] = rating.told(judging.judge)
            return
        for row in rows:
            if failed := failed_test(validator, row.columns, self.functions.get(index)):
                told = row.columns if validator.column is None else row.columns[validator.column]
                row.fail(step, failed[0], as_text(told), failed[1])

    def _result(self, row: _Row) -> GeneratedRow | Reject:
        fields = {name: row.columns[name] for name in self.config.columns}
        if self.written:
            fields = {}
            for name, template in self.written.items():
                try:
                    fields[name] = template.render(row.columns)
                except StageError as error:
                    self._failed(row, f"row.{name}", f"row.{name}", error, template.reads)
        if row.reject is not None:
            return row.reject
        return GeneratedRow(
            fields=fields,
            question=as_text(fields),
            made_from=row.seed.made_from,
            operators=("template",),
            reasoning="\n".join(row.reasoning),
            details={"judge": row.judged} if row.judged else {},
        )

    def _read_seeds(self, ctx: MethodContext[TemplateConfig]) -> list[_Seed]:
        """Return the seeds, each row once, in an order that does not depend on the file's.

        Raises:
            StageError: A row cannot be read, or has a column that is made here, or none has a
                column that is used.
        """
        source = ctx.inputs["seeds"]
        seeds: dict[str, _Seed] = {}
        read = 0
        known: dict[str, None] = {}
        for line, row in read_rows(source.path, source.label):
            place = f"{source.label}:{line}"
            try:
                made_from = (read_provenance(row),)
            except RowError as error:
                raise StageError(f"{place}: {error.message}", hint=error.hint) from None
            columns = {name: value for name, value in row.items() if name != PROVENANCE}
            if both := sorted(columns.keys() & self.config.columns.keys()):
                raise StageError(
                    f"{place}: column {both[0]!r} is also made by the spec",
                    hint=f"rename it under columns, or remove it from {source.label}",
                )
            known |= dict.fromkeys(columns)
            seed = _Seed(row_digest(columns), place, columns, made_from)
            seeds.setdefault(seed.key, seed)
            read += 1
        if not seeds:
            raise StageError(f"{source.label} has no rows to start from")
        if read > len(seeds):
            ctx.warn(f"{source.label}: rows that repeat another, not used: {read - len(seeds)}")
        self._check_columns(known, source.label)
        self._check_rows(seeds.values())
        number = self.config.random_seed
        return sorted(seeds.values(), key=lambda seed: draw_number(number, seed.key, "order"))

    def _check_columns(self, known: Mapping[str, None], label: str) -> None:
        for place, name, line in self.config.foreign():
            if name not in known:
                every = [*self.config.columns, *known]
                told = unknown_column(name, line, every)
                raise StageError(
                    f"{'.'.join(map(str, place))}: {told}",
                    hint=did_you_mean(name, every) or f"{label} has: {', '.join(known)}",
                )

    def _check_rows(self, seeds: Iterable[_Seed]) -> None:
        """Find the seeds without a column that is drawn from or tested."""
        needed = [(place, name) for place, name, _ in self.config.foreign()
                  if place[-1] in ("of", "column") and place[0] != "row"]  # fmt: skip
        for seed in seeds:
            for place, name in needed:
                if name not in seed.columns:
                    raise StageError(
                        f"{'.'.join(map(str, place))}: {seed.place} has no column {name!r}",
                        hint="add the column to this row, or leave out the row",
                    )


def _read(row: _Row, name: str, column: Column, reply: ChatReply) -> None:
    """Take a reply as a column, or reject the row."""
    if reply.problem:
        row.fail(name, reply.problem, "", reply.detail)
        return
    text = reply.text.strip()
    if reply.truncated or not text:
        row.fail(name, "truncated" if reply.truncated else "empty", text, without_answer(reply))
        return
    if column.schema is None:
        row.columns[name] = text
    else:
        try:
            value = json_value(text)
        except ValueError as error:
            row.fail(name, "malformed", text, f"not JSON: {error}")
            return
        if problem := mismatch(column.schema, value):
            row.fail(name, "malformed", text, problem)
            return
        row.columns[name] = value
    if reply.reasoning:
        row.reasoning.append(reply.reasoning)


def _at(row: _Row, place: str, error: StageError) -> StageError:
    """Return an error with the row and the field at which it occurred."""
    return StageError(f"{place}: {row.seed.place}: {error.message}", hint=error.hint)
