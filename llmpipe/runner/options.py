"""The options of a run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run.

    Attributes:
        only: Stages to consider, with those that they need; all by default.
        forced: Stages to run even if they are cached.
        resampled: Those of them that draw again what the journal holds.
        kept: Stages whose last artifacts count as fresh from now on.
        keep_going: After a failure, continue with stages that do not depend on it.
        jobs: Number of stages that may run at once; by default as many as fit on the machine.
        settings: The ``--set`` texts, for the record.
        locked: Whether exact artifacts must equal those of the lock file.
    """

    only: Collection[str] | None = None
    forced: Collection[str] = ()
    resampled: Collection[str] = ()
    kept: Collection[str] = ()
    keep_going: bool = False
    jobs: int | None = None
    settings: Collection[str] = ()
    locked: bool = False
