"""Report the findings in the labels: as sentences for users, as a JSON file for llmpipe.

A finding stops the run unless it is allowed by its word: ``end_of_turn`` or ``rows``. What is
allowed, and what only deserves to be known, becomes a warning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import FILE
from .rows import Example, Finding, Tally

END_OF_TURN, ROWS = "end_of_turn", "rows"

_STOPS: dict[Finding, tuple[str, str]] = {
    Finding.MASKED: (END_OF_TURN, "the end of {n} of {all} answers, {end}, is not trained"),
    Finding.MISSING: (END_OF_TURN, "{n} of {rows} rows have no {end} where the answer ends"),
    Finding.INNER: (
        END_OF_TURN,
        "in {n} rows the template writes no end after an answer that another turn follows",
    ),
    Finding.EMPTY: (END_OF_TURN, "{n} of {all} answers are empty: their end is not trained"),
    Finding.ROW: (ROWS, "nothing is trained in {n} of {rows} rows"),
}
"""The findings that stop a run: the word that allows each, and what is said of it."""

_TOLD: dict[Finding, str] = {
    Finding.CUT: "{n} of {all} answers are cut at sequence_len and trained without an end",
    Finding.GAP: "{n} of {all} answers: what the template writes before {end} is not trained",
    Finding.LEAD: (
        "{n} of {all} answers: what the template writes before the answer is neither trained nor "
        "in its prompt for generation, after which the model would have to write it"
    ),
    Finding.SKIPPED: "answers without a trained token: {n}",
}
"""The findings that are only told."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A data set that was looked at."""

    name: str
    """What it is called in sentences: training rows, evaluation rows."""
    tally: Tally
    show: Callable[[Example], str]
    """Return an example as a line: which row, and the end of its answer."""
    end: str
    """The end that its answers should have, as it is shown."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that stops the run unless ``word`` is allowed."""

    word: str
    message: str
    hint: str = ""


@dataclass(slots=True)
class Report:
    """What is told to llmpipe, and to a person who reads the log."""

    rows: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    hint: str | None = None
    shown: list[str] = field(default_factory=list)
    """The first training rows, what is trained between ⟦ and ⟧."""

    def write(self, folder: Path) -> None:
        """Write the report into a training's output folder."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(json.dumps(asdict(self)), "utf-8")

    def nothing_left(self, name: str, sequence_len: int) -> None:
        """Stop the run because Axolotl left out all rows of a data set."""
        self.error = f"{name}: Axolotl left all of them out, so none is left"
        self.hint = (
            f"most likely each is longer than sequence_len ({sequence_len} tokens) or has nothing "
            "to train: raise sequence_len, or look at the rows"
        )

    def settle(self, problems: Sequence[Problem], allowed: Collection[str]) -> None:
        """Turn what is allowed into warnings and the rest into the error."""
        self.warnings += [
            f"{problem.message}\nallowed by allow_untrained: [{problem.word}]"
            for problem in problems
            if problem.word in allowed
        ]
        refused = [problem for problem in problems if problem.word not in allowed]
        if not refused:
            return
        words = ", ".join(dict.fromkeys(problem.word for problem in refused))
        hints = dict.fromkeys(problem.hint for problem in refused if problem.hint)
        self.error = "\n".join(problem.message for problem in refused)
        self.hint = "\n".join([*hints, f"or train anyway: allow_untrained: [{words}]"])


def problems(seen: Seen, advice: Callable[[Finding], str]) -> Iterator[Problem]:
    """Yield what stops a run on these rows; ``advice`` says what to do about a finding."""
    for finding, (word, sentence) in _STOPS.items():
        if seen.tally.of(finding):
            yield Problem(word, _told(seen, finding, sentence), advice(finding))
    tally = seen.tally
    if tally.answers and tally.of(Finding.CUT) == tally.answers:
        message = f"{seen.name}: every answer is cut at sequence_len: none is trained with its end"
        yield Problem(END_OF_TURN, message, advice(Finding.CUT))


def warnings(seen: Seen) -> Iterator[str]:
    """Yield what should be known and does not stop a run."""
    for finding, sentence in _TOLD.items():
        if seen.tally.of(finding):
            yield _told(seen, finding, sentence)


def _told(seen: Seen, finding: Finding, sentence: str) -> str:
    """Return the sentence about a finding with the first rows it was made in."""
    tally = seen.tally
    said = sentence.format(
        n=tally.of(finding), all=tally.answers, rows=tally.rows, end=seen.end or "special token"
    )
    lines = [seen.show(example) for example in tally.examples[finding]]
    return "\n".join([f"{seen.name}: {said} (trained text is in ⟦ ⟧)", *lines])
