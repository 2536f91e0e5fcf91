"""Run a project: connect its store, interrupts, executor and scheduler."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

from llmpipe.graph.model import StageNode
from llmpipe.runner.events import Listener
from llmpipe.runner.executors.base import Executor
from llmpipe.runner.executors.local import LocalExecutor
from llmpipe.runner.interrupt import Interrupt
from llmpipe.runner.options import RunOptions
from llmpipe.runner.outcome import RunOutcome, new_run_id
from llmpipe.runner.plan import StagePlan
from llmpipe.runner.project import Project
from llmpipe.runner.registrations import register
from llmpipe.runner.scheduler import Scheduler

ExecutorFactory = Callable[[str, Collection[str], Collection[StageNode], int], Executor]
"""Opens an executor. It gets the run's name, the kinds of its stages, the stages that will probably
run, and a file descriptor that becomes readable to end a wait for events."""


def run_project(
    project: Project,
    plans: Mapping[str, StagePlan],
    options: RunOptions,
    listeners: Collection[Listener] = (),
    factory: ExecutorFactory = LocalExecutor,
) -> RunOutcome:
    """Bring every stage up to date.

    Args:
        project: What to run.
        plans: Its current plan; stages that are cached there are not checked again.
        options: How to run.
        listeners: Called with each event as it happens.
        factory: Opens the executor; by default, one for this machine.

    Raises:
        StoreError: The store cannot be written.
    """
    project.store.create()
    register(project.store, project.lock.path)
    begun = datetime.now(UTC)
    name = new_run_id(begun)
    nodes = project.graph.nodes
    wanted = nodes if options.only is None else options.only
    coming = [nodes[stage] for stage in wanted if plans[stage].status == "run"]
    kinds = {node.kind for node in nodes.values()}
    with (
        project.store.in_use(),
        Interrupt().watching() as interrupt,
        contextlib.closing(factory(name, kinds, coming, interrupt.wakeup)) as executor,
    ):
        scheduler = Scheduler(
            (name, begun), project, plans, options, listeners, interrupt, executor
        )
        with contextlib.closing(scheduler):
            return scheduler.execute()
