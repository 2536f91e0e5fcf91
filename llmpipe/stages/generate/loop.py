"""Take rows from a method until there are enough, or a pass yields nothing new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from llmpipe.errors import StageError
from llmpipe.formats.leakage import normalize
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.protocol import GeneratedRow, Method, Reject


@dataclass(slots=True)
class GenerationState:
    """The rows and rejects so far, and every question seen."""

    wanted: int
    rows: list[GeneratedRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
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
            self.rejects.append(event)
            return
        key = normalize(event.question)
        if key in self._seen:
            self.rejects.append(_duplicate(event))
        else:
            self._seen.add(key)
            self.rows.append(event)

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
        return ", ".join(f"{reason} {count}" for reason, count in self._reasons().items())

    def _reasons(self) -> dict[str, int]:
        return dict(sorted(Counter(reject.reason for reject in self.rejects).items()))


def collect(
    method: Method, teacher: Teacher, state: GenerationState, warn: Callable[[str], None]
) -> None:
    """Run passes of the method until the state has enough rows.

    Raises:
        StageError: a whole pass made no row, and there are no earlier rows.
    """
    for number in count():
        before = len(state.rows)
        for event in method.draw(teacher, number):
            state.take(event)
            if isinstance(event, Reject) and event.reason == "too long":
                warn(_too_long(event))
            if not state.missing():
                return
        if len(state.rows) == before:
            _give_up(method, state, warn)
            return


def _give_up(method: Method, state: GenerationState, warn: Callable[[str], None]) -> None:
    if not state.rows:
        raise StageError(
            f"the teacher wrote no usable row from {method.material} "
            f"(rejected: {state.told_reasons() or 'nothing'})",
            hint="use a larger teacher, or raise teacher.max_tokens if replies are truncated",
        )
    warn(
        f"{len(state.rows)} of {state.wanted} rows: a whole pass over {method.material} gave "
        f"nothing new (rejected: {state.told_reasons()}); add seeds or raise teacher.temperature"
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
