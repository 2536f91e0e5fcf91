"""How quickly a teacher replies, to show users the progress and the remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE = 1.0
"""Seconds between two words: each is an event that stays, and a journal answers at once."""


class Pace:
    """Counts the replies of each step and reports progress.

    The time left is that of the group of seeds that is asked about, at the pace of the run so far,
    where none of its prompts is eliminated.
    """

    def __init__(
        self, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._note = ""
        self._asked = self._after = self._done = self._tokens = 0
        self._sent, self._seconds, self._begun, self._told = 0, 0.0, 0.0, 0.0

    @property
    def note(self) -> str:
        """The step that is being done."""
        return self._note

    def step(self, note: str) -> None:
        """Record the next step."""
        self._note = note
        self._tell(note)

    def asked(self, count: int, after: int) -> None:
        """Note that so many replies are asked for, and how many more after them, at most."""
        self._seconds, self._begun = self._spent(), self._clock()
        self._asked, self._after, self._done, self._tokens = count, after, 0, 0
        self._told = self._begun

    def replied(self, tokens: int | None) -> None:
        """Note a reply, by its tokens where they are known; None is one that the journal held."""
        self._done += 1
        if tokens is not None:
            self._sent, self._tokens = self._sent + 1, self._tokens + tokens
        if self._done == self._asked or self._clock() - self._told >= PAUSE:
            self._told = self._clock()
            self._tell(self._text())

    def _spent(self) -> float:
        """Return the seconds that replies have taken so far in this run."""
        return self._seconds + (self._clock() - self._begun if self._asked else 0.0)

    def _text(self) -> str:
        told = [self._note, f"{self._done} of {self._asked} replies"]
        seconds = self._clock() - self._begun
        if self._tokens and seconds > 0:
            told.append(f"{self._tokens / seconds:.3g} tokens/s")
        left = self._asked - self._done + self._after
        if left and self._sent:
            told.append(f"{_in_words(left * self._spent() / self._sent)} left")
        return ", ".join(told)


def _in_words(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"about {minutes} min" if minutes < 120 else f"about {round(minutes / 60)} h"
