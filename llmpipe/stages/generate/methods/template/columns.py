"""The columns of a template row: drawn at random, made from others, or asked of the teacher."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llmpipe.contracts import FieldPath
from llmpipe.errors import StageError, did_you_mean
from llmpipe.stages.generate.methods.template.sandbox import Template

KINDS = ("values", "of", "number", "date", "person", "template", "prompt")
"""The fields of a column of which one says how it is made."""

TEMPLATES = ("template", "prompt", "system")
"""The fields of a column that are templates."""


class NumberRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Numbers, each as likely as another."""

    min: float
    """The smallest number."""
    max: float
    """The largest number."""
    decimals: Annotated[int, Meta(ge=0, le=9)] = 0
    """Digits after the point."""

    def problem(self) -> str:
        """Return what is wrong, or an empty text."""
        if not all(math.isfinite(each * 10**self.decimals) for each in (self.min, self.max)):
            return f"a number is needed on each side, not {self.min:g} and {self.max:g}"
        return "" if self.min <= self.max else f"min {self.min:g} is above max {self.max:g}"

    def draw(self, chance: random.Random) -> int | float:
        """Return a number of the range."""
        scale = 10**self.decimals
        number = chance.randint(round(self.min * scale), round(self.max * scale))
        return number / scale if self.decimals else number


class DateRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Days, each as likely as another."""

    first: str
    """The first day, as in `2024-01-31`."""
    last: str
    """The last day."""
    format: str = "%d %B %Y"
    """How a day is written, in the codes of `strftime`. A column of which all rows are written like
    2024-01-31 is read as timestamps by `datasets`."""

    def problem(self) -> str:
        """Return what is wrong, or an empty text."""
        try:
            first, last = date.fromisoformat(self.first), date.fromisoformat(self.last)
        except ValueError as error:
            return f"{error}; write days as 2024-01-31"
        return "" if first <= last else f"first {first} is after last {last}"

    def draw(self, chance: random.Random) -> str:
        """Return a day of the range as text."""
        first, last = date.fromisoformat(self.first), date.fromisoformat(self.last)
        day = first + timedelta(days=chance.randint(0, (last - first).days))
        return day.strftime(self.format)


class PersonNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Names of persons, from lists of your own."""

    given: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Given names."""
    family: tuple[str, ...] = ()
    """Family names; without any, a person has a given name only."""

    def problem(self) -> str:
        """Return what is wrong, or an empty text."""
        return (
            "" if all(name.strip() for name in (*self.given, *self.family)) else "has a blank name"
        )

    def draw(self, chance: random.Random) -> str:
        """Return a name."""
        given = chance.choice(self.given)
        return f"{given} {chance.choice(self.family)}" if self.family else given


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a column is made: exactly one of values, of, number, date, person, template, prompt."""

    values: tuple[str, ...] | None = None
    """A category: one of these values."""
    weights: tuple[float, ...] | None = None
    """How likely each of `values` is, in proportion; by default, all are equally likely."""
    of: str | None = None
    """A subcategory: the column whose value decides which of `by` apply."""
    by: dict[str, tuple[str, ...]] | None = None
    """For each value of the column `of`, the values of this one."""
    number: NumberRange | None = None
    """A number of a range."""
    date: DateRange | None = None
    """A day of a range."""
    person: PersonNames | None = None
    """The name of a person."""
    template: str | None = None
    """A text made of other columns, as a Jinja template."""
    prompt: str | None = None
    """A Jinja template of what the teacher is asked; its reply is the column."""
    system: str | None = None
    """A Jinja template of the system message before `prompt`."""
    schema: dict[str, Any] | None = None
    """A JSON Schema of the teacher's reply, which then is a JSON value: `{{ column.field }}`."""

    def problems(self) -> Iterator[tuple[FieldPath, str]]:
        """List what does not go together, as (field, message)."""
        made = [name for name in KINDS if getattr(self, name) is not None]
        if len(made) != 1:
            has = f"it has {' and '.join(made)}" if made else "it has none of them"
            yield (), f"a column is made by exactly one of {', '.join(KINDS)}; {has}"
            return
        beside = {"weights": "values", "by": "of", "system": "prompt", "schema": "prompt"}
        for name, owner in beside.items():
            if getattr(self, name) is not None and made != [owner]:
                yield (name,), f"belongs to a column with {owner}"
        if self.values is not None:
            yield from _problems_of_category(self.values, self.weights)
        if self.of is not None and not self.by:
            yield ("by",), f"says which values go with each value of {self.of!r}; it is missing"
        for value, choices in (self.by or {}).items():
            if not choices:
                yield ("by", value), "is empty"
        for name in ("number", "date", "person"):
            if problem := (value := getattr(self, name)) and value.problem():
                yield (name,), problem

    def templates(self) -> Iterator[tuple[str, str]]:
        """Yield the templates of the column by field."""
        for name in TEMPLATES:
            if (text := getattr(self, name)) is not None:
                yield name, text

    def sample(self, chance: random.Random, columns: Mapping[str, Any]) -> Any:
        """Draw a value of a column that is neither a template nor asked of the teacher.

        Raises:
            StageError: The column that this one depends on has a value that `by` does not know.
        """
        if self.values is not None:
            return chance.choices(self.values, self.weights)[0]
        if self.of is not None:
            return chance.choice(self._choices(str(columns[self.of])))
        for sampler in (self.number, self.date, self.person):
            if sampler is not None:
                return sampler.draw(chance)
        raise AssertionError("the column is checked when the spec is read")

    def _choices(self, value: str) -> tuple[str, ...]:
        by = self.by or {}
        if value not in by:
            raise StageError(
                f"'by' has no values for {value!r}, which column {self.of!r} is",
                hint=did_you_mean(value, by) or f"it has: {', '.join(by)}",
            )
        return by[value]


def _problems_of_category(
    values: tuple[str, ...], weights: tuple[float, ...] | None
) -> Iterator[tuple[FieldPath, str]]:
    if not values:
        yield ("values",), "is empty"
    if weights is None:
        return
    if len(weights) != len(values):
        yield ("weights",), f"has {len(weights)} weights for {len(values)} values"
    elif min(weights, default=0) < 0 or not sum(weights) < float("inf") or sum(weights) <= 0:
        yield ("weights",), "must be 0 or more, and not all 0"


def needed_columns(column: Column) -> dict[str, tuple[str, int]]:
    """Return the columns that a column is made from, each with the field and line that names it.

    Raises:
        StageError: A template has a mistake; the message begins with its field.
    """
    found: dict[str, tuple[str, int]] = {}
    if column.of is not None:
        found[column.of] = ("of", 0)
    for field, text in column.templates():
        try:
            reads = Template(text).reads
        except StageError as error:
            raise StageError(f"{field}: {error.message}") from None
        for name, line in reads.items():
            found.setdefault(name, (field, line))
    return found


def order_of(columns: Mapping[str, Column]) -> tuple[str, ...]:
    """Return the columns such that each comes after those that it is made from.

    Raises:
        StageError: Columns are made from each other in a circle, or a template has a mistake.
    """
    graph = {
        name: sorted(needed_columns(columns[name]).keys() & columns.keys())
        for name in sorted(columns)
    }
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise StageError(f"columns are made from each other: {' → '.join(error.args[1])}") from None


def written_by_teacher(columns: Mapping[str, Column]) -> frozenset[str]:
    """Return the columns that the teacher writes, and those that are made from them."""
    found: set[str] = set()
    for name in order_of(columns):
        column = columns[name]
        if column.prompt is not None or not found.isdisjoint(needed_columns(column)):
            found.add(name)
    return frozenset(found)
