"""How a run is to go, as its caller says."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run.

    Attributes:
        only: stages to consider, those they need included; all by default.
        forced: stages to run even when cached.
        resampled: those of them that are to draw anew what the journal holds.
        kept: stages whose last artifacts count as fresh, from now on.
        keep_going: after a failure, go on with what does not hang on it.
        jobs: how many stages may run at once; by default as many as the machine holds.
        settings: the ``--set`` texts, for the record.
        locked: whether exact artifacts must be those of the lock file.
    """

    only: Collection[str] | None = None
    forced: Collection[str] = ()
    resampled: Collection[str] = ()
    kept: Collection[str] = ()
    keep_going: bool = False
    jobs: int | None = None
    settings: Collection[str] = ()
    locked: bool = False
