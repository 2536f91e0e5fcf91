"""A running stage, as the scheduler sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpipe.graph.model import StageNode
from llmpipe.runner.executors.base import Handle
from llmpipe.runner.outcome import StageOutcome
from llmpipe.runner.plan import StagePlan
from llmpipe.runner.resources import Grant
from llmpipe.terminal import uncolored

LOG_TAIL = 15
"""Number of log lines that the error of a failed stage shows."""


@dataclass(slots=True)
class Running:
    """A stage that the executor runs, and what is known of it so far."""

    node: StageNode
    plan: StagePlan
    outcome: StageOutcome
    handle: Handle
    grant: Grant
    log: Path
    begun: float
    attempt: int
    working: float | None = None
    """When the stage itself began, after it had waited for other processes."""
    publishing: bool = False
    """Whether its outputs are being stored."""
    finished: Mapping[str, Any] | None = None
    timed_out: bool = False

    def deadline(self) -> float | None:
        """Return when the stage times out, or None while it waits, is being stored or stops."""
        timeout = self.node.config.timeout
        if timeout is None or self.working is None or self.publishing or self.timed_out:
            return None
        return self.working + timeout

    def log_tail(self) -> list[str]:
        """Return the last non-empty lines of the stage's log."""
        try:
            with self.log.open("rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - 20_000))
                lines = uncolored(stream.read().decode("utf-8", "replace")).splitlines()
        except OSError:
            return []
        return [line for line in lines if line.strip()][-LOG_TAIL:]
