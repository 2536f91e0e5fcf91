"""Measure how an embedder reads the chunks of a collection, and report what it cannot read.

It is used when chunks are cut and when they are embedded, since the two stages may name different
models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from llmpipe.errors import StageError
from llmpipe.retrieval.chunks import Chunk
from llmpipe.retrieval.reading import UNREAD, WARN, Reading

Unknown = Literal["refuse", "allow"]
SHOWN = 40
"""How many characters of a text are shown as an example."""


@dataclass(slots=True)
class Survey:
    """How the added chunks are read, in total and one by one."""

    whole: Reading = field(default_factory=Reading)
    count: int = 0
    unread: list[int] = field(default_factory=list)
    """Rows that cannot be read, in order."""
    worst: float = 0.0
    _example: str = ""

    def add(self, reading: Reading, chunk: Chunk) -> None:
        """Count the next chunk."""
        self.whole += reading
        if reading.unread:
            self.unread.append(self.count)
        if reading.unknown_share > self.worst:
            self.worst = reading.unknown_share
            text = " ".join(chunk.text[: SHOWN * 2].split())[:SHOWN]
            self._example = f"{chunk.document}, at character {chunk.start}: {text!r}"
        self.count += 1

    def check(self, model: str, unknown: Unknown, warn: Callable[[str], None]) -> None:
        """Refuse text that a model cannot read, unless allowed, and warn about the rest.

        Raises:
            StageError: the model does not know half of the text or more.
        """
        share, spelled = self.whole.unknown_share, self.whole.spelled_share
        if share >= UNREAD and unknown == "refuse":
            raise StageError(
                f"{model} cannot read {share:.0%} of the text: its tokenizer does not know the "
                f"words, so their vectors are all alike. {self._example}",
                hint="name an embedder for this language as `model` of the chunk and embed stages; "
                "or search by words: `mode: bm25`, and `unknown: allow` in both stages",
            )
        if share >= WARN or self.unread:
            warn(
                f"{model} does not know {share:.1%} of the text and cannot read "
                f"{len(self.unread)} of {self.count} chunks; a hybrid search finds these by their "
                f"words alone. {self._example}"
            )
        if spelled >= UNREAD:
            warn(
                f"{model} reads {spelled:.0%} of the letters one by one: it was probably not "
                "trained for this language; an embedder for the language finds more"
            )

    def metrics(self) -> dict[str, Any]:
        """Return the metrics; empty if the model knows all of the text."""
        share = round(self.whole.unknown_share, 4)
        found: dict[str, Any] = {"unknown": share} if share else {}
        return {**found, "unread_chunks": len(self.unread)} if self.unread else found
