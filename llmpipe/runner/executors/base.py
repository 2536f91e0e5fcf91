"""The executor protocol: everything that the scheduler knows about what runs its stages.

An executor gets a stage as a `StageRequest`. From then on it reports events about the stage, up to
the last one, ``ended``. It has these duties:

- A stage has a lease on its key while it runs (`llmpipe.runner.lease`), so that it runs once even
  if several machines share a store.
- A finished stage is in the head's store before ``ended`` is reported. It stays finished if the
  head dies.
- The stage's log is in the file that the request names when ``ended`` is reported.
- Secrets are removed from the log and from all events.
- An executor on another machine sends `llmpipe.runner.shipping.portable` requests, whose inputs are
  objects and hub repositories, and the objects that the other store lacks. There it opens a store
  (`Store.create`), puts its folder into the request as ``home``, and calls `worker.work_on`.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any, Protocol

from llmpipe.runner.request import StageRequest
from llmpipe.runner.resources import Grant, Machine

Handle = Hashable
"""A stage that the executor has taken. The scheduler only compares it."""

Event = Mapping[str, Any]
"""A report of an executor. ``event`` is its type; the other fields depend on it:

- ``working``: the stage itself begins; before that it waited for other processes.
- ``waiting``: another run holds the stage's key; ``owner`` says who.
- ``log``, ``progress``, ``usage``, ``warning``: what is shown of a stage; see the reference.
- ``unreachable``: the remote store did not answer; ``message`` says why.
- ``publishing``: the stage is done and its outputs are being stored.
- ``finished``: ``status`` is done, cached, failed or interrupted; the last two have an ``error``.
- ``ended``: the last event. No process of the stage runs any more. Without an earlier ``finished``,
  the stage was killed.
"""


class Executor(Protocol):
    """Runs stages somewhere."""

    def capacity(self) -> Machine:
        """Return what the stages share: CPU threads, memory, GPUs."""
        ...

    def submit(self, request: StageRequest, grant: Grant) -> Handle:
        """Start a stage with the resources that it was granted.

        Raises:
            LlmpipeError: The stage cannot be started.
        """
        ...

    def events(self, timeout: float) -> Iterable[tuple[Handle, Event]]:
        """Wait for events and return them, those of one stage in order.

        Args:
            timeout: Seconds to wait at most. An interrupt ends the wait as well.
        """
        ...

    def stop(self, handles: Collection[Handle], *, now: bool = False) -> None:
        """Begin to stop stages, and return. ``ended`` tells when a stage has stopped.

        A stage gets a few seconds to stop by itself. While it is ``publishing``, the executor waits
        for it.

        Args:
            handles: The stages.
            now: Do not wait, and end stages that are ``publishing`` as well.
        """
        ...

    def close(self) -> None:
        """Release what the executor holds. Running stages continue."""
        ...
