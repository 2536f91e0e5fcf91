"""Find speakers that Axolotl does not know: it passes on their turns, but trains on none of them.

This looks at the turns of conversations as `llmpipe.formats.turn` reads them. How the chat template
renders a role is not checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from llmpipe.errors import StageError, did_you_mean
from llmpipe.formats.turn import NAMES, ROLES, Turn

ALLOWED = "speakers"
"""The word of ``allow_untrained`` that lets unknown speakers pass."""


class Speakers:
    """Collects the speakers of one file that have no role; each remembers its first place."""

    def __init__(self, dataset: Mapping[str, Any]) -> None:
        """Read from the stage's ``dataset`` which names and roles are the user's own."""
        own: Mapping[str, Iterable[str]] = dataset.get("roles") or {}
        named = (name for names in own.values() for name in names)
        self._known = {*ROLES, *own, *named, *(dataset.get("roles_to_train") or ())}
        self._suggested = self._known if own else self._known | set(NAMES)
        self._first: dict[str, str] = {}
        self._turns: Counter[str] = Counter()

    def look(self, turns: Iterable[Turn], place: str) -> None:
        """Record the speakers of the conversation at ``place``."""
        for number, turn in enumerate(turns, 1):
            speaker = turn.role
            if speaker not in self._known:
                self._first.setdefault(speaker, f"{place}: turn {number}")
                self._turns[speaker] += 1

    def notes(self, allow_untrained: Collection[str]) -> list[str]:
        """Return the notes about unknown speakers, if they are allowed.

        Raises:
            StageError: There are unknown speakers, and they are not allowed.
        """
        if not self._turns:
            return []
        said = "\n".join(
            f"{place} is said by {speaker!r} ({self._turns[speaker]} turns in all)"
            for speaker, place in self._first.items()
        )
        message = (
            f"speakers that Axolotl does not know, so that nothing they say is trained:\n{said}"
        )
        if ALLOWED in allow_untrained:
            return [f"{message}\nallowed by allow_untrained: [{ALLOWED}]"]
        known = self._suggested
        guess = next(filter(None, (did_you_mean(name, known) for name in self._turns)), None)
        raise StageError(
            message,
            hint=f"{guess or 'rename them'}; known: {', '.join(sorted(known))}\n"
            f"or train anyway: allow_untrained: [{ALLOWED}]",
        )
