"""Count and report what training ignores in a stage's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from llmpipe.formats.provenance import PROVENANCE
from llmpipe.formats.turn import Turn


class Tally:
    """Counts per file; each count has the line of its first occurrence."""

    def __init__(self, label: str, turn_keys: Iterable[str] = ()) -> None:
        self._label = label
        self._turn_keys = frozenset(turn_keys)
        self.marked = False
        """Whether turns say if they are trained on."""
        self._columns: Counter[str] = Counter()
        self._keys: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()
        self._first: dict[str, int] = {}
        self.labels: Counter[bool] = Counter()
        """How many answers are labeled good, and how many bad."""

    def columns(self, left: Iterable[str]) -> None:
        """Count the columns of a row that training does not read."""
        self._columns.update(name for name in left if name != PROVENANCE)

    def turns(self, turns: Iterable[Turn]) -> None:
        """Count the keys of turns that a chat template may not read."""
        for turn in turns:
            self._keys.update(key for key in turn.extra if key not in self._turn_keys)
            self.marked |= turn.trained is not None

    def answers(self, turns: Iterable[Turn], line: int) -> None:
        """Count a conversation with an empty turn of the assistant."""
        if any(turn.role == "assistant" and turn.is_blank for turn in turns):
            self.rows("with an empty answer, which teaches the model to answer nothing", line)

    def rows(self, what: str, line: int) -> None:
        """Count a row for the note ``what``."""
        self._rows[what] += 1
        self._first.setdefault(what, line)

    def label(self, label: bool) -> None:
        """Count an answer that is labeled good or bad."""
        self.labels[label] += 1

    def notes(self) -> list[str]:
        """Return a sentence for everything that was counted."""
        notes = []
        if self._columns:
            named = _listed(self._columns, "row", "rows")
            notes.append(f"{self._label}: training does not read the columns {named}")
        if self._keys:
            named = _listed(self._keys, "turn", "turns")
            notes.append(
                f"{self._label}: keys of turns that only a chat template that names them reads: "
                f"{named}"
            )
        for what, count in self._rows.items():
            rows = "1 row" if count == 1 else f"{count} rows"
            notes.append(f"{self._label}: {rows} {what} (first: line {self._first[what]})")
        return notes


def _listed(counts: Counter[str], one: str, many: str) -> str:
    return ", ".join(
        f"{name} ({count} {one if count == 1 else many})" for name, count in sorted(counts.items())
    )
