"""Survey how an embedder reads the chunks of a collection, and say what it cannot read.

Used where chunks are cut and where they are embedded: the two may name different models.
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
"""Characters of a text that are shown as an example."""


@dataclass(slots=True)
class Survey:
    """How the chunks that were added are read, all together and one by one."""

    whole: Reading = field(default_factory=Reading)
    count: int = 0
    unread: list[int] = field(default_factory=list)
    """The rows that cannot be read, in their order."""
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
        """Refuse what a model cannot read, unless it is allowed, and warn of what it reads badly.

        Raises:
            StageError: half of it is unknown to the model, or more.
        """
        share, spelled = self.whole.unknown_share, self.whole.spelled_share
        if share >= UNREAD and unknown == "refuse":
            raise StageError(
                f"{model} cannot read {share:.0%} of the text: its tokenizer does not know the "
                f"words, so that their vectors tell nothing apart. {self._example}",
                hint="name an embedder of this language as `model` of the chunk and embed stages; "
                "or search by words: `mode: bm25`, and `unknown: allow` in both stages",
            )
        if share >= WARN or self.unread:
            warn(
                f"{model} does not know {share:.1%} of the text; {len(self.unread)} of "
                f"{self.count} chunks it cannot read: a hybrid search finds these by their words "
                f"alone. {self._example}"
            )
        if spelled >= UNREAD:
            warn(
                f"{model} reads {spelled:.0%} of the letters one by one: it was hardly made for "
                "this language; an embedder of the language finds more"
            )

    def metrics(self) -> dict[str, Any]:
        """Return the figures; none where everything is known."""
        share = round(self.whole.unknown_share, 4)
        found: dict[str, Any] = {"unknown": share} if share else {}
        return {**found, "unread_chunks": len(self.unread)} if self.unread else found
