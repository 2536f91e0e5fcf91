"""What a measurement comes to: tables to be read, targets met or missed, and the bare figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that must not be below ``least`` or above ``most``."""

    what: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def met(self) -> bool:
        """Whether it is so."""
        enough = self.least is None or self.value >= self.least
        return enough and (self.most is None or self.value <= self.most)

    def line(self) -> str:
        """Say it in a line of Markdown."""
        bounds = [f"≥ {self.least:g}"] if self.least is not None else []
        bounds += [f"≤ {self.most:g}"] if self.most is not None else []
        verdict = "met" if self.met else "**missed**"
        return f"- {self.what}: {self.value:.4g} (target {' and '.join(bounds)}): {verdict}"


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the names of its columns, and its rows of cells."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> list[str]:
        """Return it as Markdown."""
        rule = "|" + "---|" * len(self.head)
        return [f"**{self.title}**", "", _line(self.head), rule, *map(_line, self.rows)]


@dataclass(slots=True)
class Measured:
    """The results of one measurement. ``figures`` goes into the JSON as it is."""

    name: str
    tables: list[Table] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """Return all of it as Markdown."""
        parts = [f"### {self.name}"]
        parts += ["\n".join(table.lines()) for table in self.tables]
        if self.targets:
            parts.append("\n".join(target.line() for target in self.targets))
        return "\n\n".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the figures and what became of the targets."""
        targets = [
            {"what": t.what, "value": t.value, "least": t.least, "most": t.most, "met": t.met}
            for t in self.targets
        ]
        return {**self.figures, "targets": targets}


def seconds(value: float) -> str:
    """Return a time as one reads it."""
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def load_average() -> float:
    """Return the machine's load over the last minute, this benchmark's own included."""
    return float(Path("/proc/loadavg").read_text().split()[0])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
