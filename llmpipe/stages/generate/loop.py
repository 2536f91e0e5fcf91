"""Take rows from a method until exactly as many as wanted pass, or say why that cannot be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from llmpipe.backends.spending import BudgetReachedError
from llmpipe.errors import StageError
from llmpipe.formats.leakage import normalize
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.protocol import PATIENCE, GeneratedRow, Method, Reject


@dataclass(slots=True)
class GenerationState:
    """The rows and rejects so far, and every question seen."""

    wanted: int
    rows: list[GeneratedRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    fruitless: int = 0
    """The number of rejects since the last row."""
    _seen: set[str] = field(default_factory=set)

    def missing(self) -> int:
        """Return how many rows are still wanted."""
        return self.wanted - len(self.rows)

    def exclude(self, questions: Iterable[str]) -> None:
        """Count rows with one of these questions as duplicates."""
        self._seen.update(map(normalize, questions))

    def take(self, event: GeneratedRow | Reject) -> None:
        """Add a row or a reject; a row whose question is not new is a reject."""
        if isinstance(event, Reject):
            self._reject(event)
            return
        key = normalize(event.question)
        if key in self._seen:
            self._reject(_duplicate(event))
        else:
            self._seen.add(key)
            self.rows.append(event)
            self.fruitless = 0

    def metrics(self) -> dict[str, Any]:
        """Return rows, rejects by reason, and rows by the operator that made them."""
        operators = Counter(row.operators[-1] for row in self.rows)
        return {
            "rows": len(self.rows),
            "rejected": self._reasons(),
            "operators": dict(sorted(operators.items())),
            "rows_with_reasoning": sum(bool(row.reasoning) for row in self.rows),
        }

    def told_reasons(self) -> str:
        """Return the reasons for rejects with their counts, for messages."""
        told = ", ".join(f"{reason} {count}" for reason, count in self._reasons().items())
        return f"rejected: {told or 'nothing'}"

    def _reject(self, reject: Reject) -> None:
        self.rejects.append(reject)
        self.fruitless += 1

    def _reasons(self) -> dict[str, int]:
        return dict(sorted(Counter(reject.reason for reject in self.rejects).items()))


def collect(
    method: Method,
    teacher: Teacher,
    state: GenerationState,
    warn: Callable[[str], None],
    *,
    patience: int = PATIENCE,
    allow_fewer: bool = False,
) -> None:
    """Run passes of the method until the state has exactly as many rows as wanted.

    Raises:
        StageError: There is no row, or there are fewer than wanted and ``allow_fewer`` is false.
    """
    try:
        why = gather(method, teacher, state, warn, patience=patience)
    except BudgetReachedError as error:
        if not (allow_fewer and state.rows):
            raise
        warn(error.message)
        return
    if why and not state.rows:
        raise StageError(
            f"the teacher wrote no usable row from {method.material} ({state.told_reasons()})",
            hint="use a larger teacher, or raise teacher.max_tokens if replies are truncated; "
            "`llmpipe show SPEC STAGE` shows prompts and rejects",
        )
    if why:
        message = f"{len(state.rows)} of {state.wanted} rows: {why} ({state.told_reasons()})"
        if not allow_fewer:
            raise StageError(message, hint=_after_shortfall(len(state.rows)))
        warn(message)


def gather(
    method: Method,
    teacher: Teacher,
    state: GenerationState,
    warn: Callable[[str], None],
    *,
    patience: int,
) -> str:
    """Run passes of the method; return why they ended too early, or an empty text."""
    number = 0
    while True:
        rows, rejects = len(state.rows), len(state.rejects)
        for event in _explained(method.draw(teacher, number), state):
            state.take(event)
            if isinstance(event, Reject) and event.reason == "too long":
                warn(_too_long(event))
            if not state.missing():
                return ""
            if state.fruitless >= patience and not teacher.budget_reached:
                return f"the last {patience} results were all rejected (`patience: {patience}`)"
        if teacher.budget_reached:
            _explain(teacher.budget_reached, state)
            raise teacher.budget_reached
        if len(state.rows) == rows:
            if len(state.rejects) == rejects:
                return f"{method.material}: all used up"
            return f"a whole pass over {method.material} gave nothing new"
        number += 1


def _explained(
    events: Iterator[GeneratedRow | Reject], state: GenerationState
) -> Iterator[GeneratedRow | Reject]:
    """Yield events; an error that ends them says how far the stage has come."""
    try:
        yield from events
    except StageError as error:
        _explain(error, state)
        raise


def _explain(error: StageError, state: GenerationState) -> None:
    """Add to an error's message how far the stage has come."""
    if state.rows or state.rejects:
        done = f"{len(state.rows)} of {state.wanted} rows so far"
        error.message += f" ({done}; {state.told_reasons()})"


def _after_shortfall(rows: int) -> str:
    return (
        "every reply is journaled and is not paid for again: add seeds, raise "
        f"teacher.temperature, or take fewer rows with count: {rows} or allow_fewer: true"
    )


def _duplicate(row: GeneratedRow) -> Reject:
    return Reject(
        reason="duplicate",
        text=row.question,
        place="",
        made_from=row.made_from,
        operator=row.operators[-1],
        round=len(row.operators),
    )


def _too_long(reject: Reject) -> str:
    return (
        f"{reject.place}: round {reject.round}: the prompt exceeds the teacher's context: "
        f"{reject.detail}"
    )
