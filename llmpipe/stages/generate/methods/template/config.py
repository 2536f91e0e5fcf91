"""The fields of the method ``template``, and what can be said of them before a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Literal

from msgspec import Meta

from llmpipe.contracts import FieldPath, Finding, Input
from llmpipe.errors import StageError, did_you_mean
from llmpipe.formats.first_rows import Named, absent
from llmpipe.formats.json_schema import schema_problem
from llmpipe.stages.generate.methods.template.columns import Column, needed_columns, order_of
from llmpipe.stages.generate.methods.template.sandbox import Template
from llmpipe.stages.generate.methods.template.validators import Validator
from llmpipe.stages.generate.protocol import GenerateConfig

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class TemplateConfig(GenerateConfig, frozen=True, kw_only=True):
    """Make rows of columns: drawn at random, made from each other, or asked of the teacher."""

    method: Literal["template"]
    """The method: rows of columns that are drawn, made from others, or asked of the teacher."""
    columns: Annotated[dict[str, Column], Meta(min_length=1)]
    """How each column is made. A column may use the others and those of the seeds."""
    seeds: str | None = None
    """Rows whose columns the templates may use: a file, or a stage's records or dataset. Each makes
    one row in a pass."""
    row: dict[str, str] | None = None
    """The columns that are written, each a Jinja template; by default, all of `columns`."""
    validators: tuple[Validator, ...] = ()
    """Tests that a row must pass, in their order."""

    def sources(self) -> Mapping[str, Input]:
        found = {}
        if self.seeds is not None:
            found["seeds"] = Input(("seeds",), self.seeds, ("records", "dataset"))
        for index, validator in enumerate(self.validators):
            if validator.python is not None:
                field = ("validators", index, "python")
                found[f"validators.{index}.python"] = Input(field, validator.python, ("file",))
        return found

    def own_problems(self) -> Iterable[tuple[FieldPath, str]]:
        mistakes = [*self._problems_of_columns(), *self._problems_of_row()]
        for index, validator in enumerate(self.validators):
            for field, message in validator.problems(self.teacher.temperature):
                mistakes.append((("validators", index, *field), message))
        if not mistakes:
            mistakes = self._problems_between()
        return mistakes

    def replies_per_row(self) -> float:
        prompts = sum(column.prompt is not None for column in self.columns.values())
        return prompts + sum(each.judge.repeats for each in self.validators if each.judge)

    def review(self) -> Iterable[Finding]:
        named = [Named(field, name, required=False) for field, name, _ in self.foreign()]
        return absent([self.seeds], named, self.columns) if self.seeds else ()

    def foreign(self) -> Iterator[tuple[FieldPath, str, int]]:
        """Yield the columns that are used and not made here: field, name, and line in the field."""
        for name, column in self.columns.items():
            for needed, (field, line) in needed_columns(column).items():
                if needed not in self.columns:
                    yield ("columns", name, field), needed, line
        for name, text in (self.row or {}).items():
            for needed, line in Template(text).reads.items():
                if needed not in self.columns:
                    yield ("row", name), needed, line
        for index, validator in enumerate(self.validators):
            if validator.column is not None and validator.column not in self.columns:
                yield ("validators", index, "column"), validator.column, 0

    def _problems_of_columns(self) -> Iterator[tuple[FieldPath, str]]:
        for name, column in self.columns.items():
            if not _NAME.fullmatch(name):
                yield ("columns", name), "a column's name has letters, digits and _ only"
            for field, message in column.problems():
                yield ("columns", name, *field), message
            if column.schema is not None and (problem := schema_problem(column.schema)):
                yield ("columns", name, "schema"), problem
            for kind, text in column.templates():
                if problem := _template_problem(text):
                    yield ("columns", name, kind), problem

    def _problems_of_row(self) -> Iterator[tuple[FieldPath, str]]:
        if self.row is not None and not self.row:
            yield ("row",), "is empty, so that rows have no column"
        for name, text in (self.row or {}).items():
            if problem := _template_problem(text):
                yield ("row", name), problem

    def _problems_between(self) -> list[tuple[FieldPath, str]]:
        """List the columns that are not there, and those that are made from each other."""
        try:
            order_of(self.columns)
        except StageError as error:
            return [(("columns",), error.message)]
        if self.seeds is not None:
            return []  # the seeds may have them
        return [
            (field, unknown_column(name, line, self.columns))
            for field, name, line in self.foreign()
        ]


def unknown_column(name: str, line: int, known: Collection[str]) -> str:
    """Return the message for a column that is used and not there."""
    where = f"line {line}: " if line else ""
    near = did_you_mean(name, known)
    return f"{where}there is no column {name!r}; {near or 'columns: ' + ', '.join(known)}"


def _template_problem(text: str) -> str:
    try:
        Template(text)
    except StageError as error:
        return error.message
    return ""
