"""One document in a hundred edited: some changed, some added, some deleted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.rag.corpus import Passage

PART = 0.01


@dataclass(frozen=True, slots=True)
class Edit:
    """What happens to a collection: documents with a new text, new ones, and ids that go."""

    changed: tuple[Passage, ...]
    added: tuple[Passage, ...]
    deleted: tuple[str, ...]

    def apply(self, passages: Sequence[Passage]) -> list[Passage]:
        """Return the collection afterwards; what is new stands at its end."""
        changed = {passage.id: passage for passage in self.changed}
        kept = [changed.get(p.id, p) for p in passages if p.id not in {*self.deleted}]
        return [*kept, *self.added]


def edit(passages: Sequence[Passage], seed: int) -> Edit:
    """Draw an edit of one document in a hundred: half are changed, a quarter each added, deleted.

    No text of it was ever seen: nothing is known of it from before.
    """
    chance = random.Random(seed)
    count = max(4, round(PART * len(passages)))
    touched = chance.sample(passages, count * 3 // 4)
    changed, deleted = touched[: count // 2], touched[count // 2 :]
    sources = chance.sample(passages, count - len(touched))
    return Edit(
        tuple(replace(p, text=f"Revision {seed}: {p.text}") for p in changed),
        tuple(Passage(f"new{seed}-{i}", f"News {seed}: {p.text}") for i, p in enumerate(sources)),
        tuple(p.id for p in deleted),
    )
