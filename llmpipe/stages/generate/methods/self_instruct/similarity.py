"""How similar a task is to every task so far, by ROUGE-L: the F-measure over words in order."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmpipe.words import plain_words


@dataclass(slots=True)
class TaskPool:
    """Tasks by their words; memory and time grow with the number of tasks."""

    texts: list[str] = field(default_factory=list)
    _words: list[list[str]] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Add a task."""
        self.texts.append(text)
        self._words.append(plain_words(text))

    def nearest(self, text: str, at_least: float) -> tuple[float, str] | None:
        """Return the most similar task with its ROUGE-L, or None if all are below ``at_least``.

        Args:
            text: the task to compare.
            at_least: the lowest similarity of interest, above 0.
        """
        words = plain_words(text)
        positions = _positions(words)
        best: tuple[float, str] | None = None
        for other, known in zip(self._words, self.texts, strict=True):
            total = len(words) + len(other)
            if 2 * min(len(words), len(other)) < at_least * total or not total:
                continue  # too different in length, whatever the words
            score = 2 * _common(positions, len(words), other) / total
            if score >= at_least and (best is None or score > best[0]):
                best = score, known
        return best


def _positions(words: list[str]) -> dict[str, int]:
    """Return the positions of each word, as a bit mask."""
    masks: dict[str, int] = {}
    for index, word in enumerate(words):
        masks[word] = masks.get(word, 0) | 1 << index
    return masks


def _common(positions: dict[str, int], length: int, other: list[str]) -> int:
    """Return the length of the longest common subsequence.

    Bit-parallel (Hyyrö 2004): one step for each word of ``other``, on all of the first text's
    positions at once. A zero bit of ``row`` is a position where the subsequence grows.
    """
    everything = (1 << length) - 1
    row = everything
    for word in other:
        match = row & positions.get(word, 0)
        row = ((row + match) | (row - match)) & everything
    return length - row.bit_count()
