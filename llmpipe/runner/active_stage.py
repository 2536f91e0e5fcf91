"""A stage while it runs, as the scheduler sees it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpipe.graph.model import StageNode
from llmpipe.runner.outcome import StageOutcome
from llmpipe.runner.plan import StagePlan
from llmpipe.runner.resources import Grant
from llmpipe.runner.workers import Worker
from llmpipe.terminal import uncoloured

LOG_TAIL = 15
"""Lines of a failed stage's log that its error shows."""


@dataclass(slots=True)
class Running:
    """A stage in the hands of a worker, and what the worker has told of it so far."""

    node: StageNode
    plan: StagePlan
    outcome: StageOutcome
    worker: Worker
    grant: Grant
    log: Path
    begun: float
    attempt: int
    working: float | None = None
    """When its worker began with the stage itself, having waited for nobody any more."""
    publishing: bool = False
    """Whether what it made is being put into the store."""
    finished: dict[str, Any] | None = None

    def deadline(self) -> float | None:
        """Give when its time is over; None while it waits for others, or is stored."""
        timeout = self.node.config.timeout
        if timeout is None or self.working is None or self.publishing:
            return None
        return self.working + timeout

    def log_tail(self) -> list[str]:
        """Give the last lines of its log that say something."""
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - 20_000))
                lines = uncoloured(stream.read().decode("utf-8", "replace")).splitlines()
        except OSError:
            return []
        return [line for line in lines if line.strip()][-LOG_TAIL:]
