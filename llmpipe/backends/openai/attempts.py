"""Remember in the journal which requests were sent without an answer, so that a budget counts them.

A note is written before a request is sent. If the process is killed, or the connection breaks, the
endpoint may bill a reply that never arrived. The next run finds the note and no reply, and counts
the request with its worst case. Notes survive a killed process, not a power cut.
"""

from __future__ import annotations

from typing import TypedDict

from llmpipe.backends.openai.journal import Journal, request_key


class Note(TypedDict):
    """What is known of a request: attempts without an answer, and whether one is under way."""

    lost: int
    open: bool


class Attempts:
    """The notes on requests, by their journal keys. Used by one client at a time."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._notes: dict[str, Note] = {}

    def lost(self, key: str, *, answered: bool) -> int:
        """Return how often a request was sent in earlier runs without an answer."""
        note = self._note(key)
        return note["lost"] + (note["open"] and not answered)

    def begin(self, key: str) -> None:
        """Note that a request is being sent."""
        lost = self.lost(key, answered=False)
        self._put(key, Note(lost=lost, open=True))

    def refused(self, key: str) -> None:
        """Note that the endpoint refused it."""
        self._put(key, Note(lost=self._note(key)["lost"], open=False))

    def _note(self, key: str) -> Note:
        if key not in self._notes:
            found = self._journal.get(_name(key), Note, counted=False)
            self._notes[key] = found or Note(lost=0, open=False)
        return self._notes[key]

    def _put(self, key: str, note: Note) -> None:
        self._notes[key] = note
        self._journal.put(_name(key), note, synced=False)


def _name(key: str) -> str:
    return request_key({"attempts": key})
