"""Run a pipeline: what is planned, checked before it starts, carried out, and written down."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.api.plan import Plan
from llmpipe.errors import RunError
from llmpipe.runner.messages import closing_text, failure_text
from llmpipe.runner.needs import estimates_of
from llmpipe.runner.options import RunOptions
from llmpipe.runner.plan import StagePlan, make_plan
from llmpipe.runner.preflight import preflight, review
from llmpipe.runner.project import Project

if TYPE_CHECKING:
    from llmpipe.runner.events import Listener
    from llmpipe.runner.outcome import RunOutcome, StageOutcome


class Run:
    """A run that has ended. In a notebook it is a table.

    Attributes:
        id: its name, as ``llmpipe runs`` lists it.
        status: ``done``, ``failed`` or ``interrupted``.
        seconds: how long it took.
        stages: how each stage ended, by name: an object with ``status`` (``cached``, ``done``,
            ``failed``, ``interrupted``, ``blocked`` or ``skipped``), ``seconds``, ``causes`` and
            ``error``.
        folder: where its logs and its record lie.
        report: its page, an HTML file; None when nothing ran.
        warnings: what was found remarkable before and after it.
    """

    def __init__(
        self, project: Project, outcome: RunOutcome, report: Path | None, warnings: Sequence[str]
    ) -> None:
        self.id = outcome.id
        self.status = outcome.status
        self.seconds = outcome.seconds
        self.stages: Mapping[str, StageOutcome] = outcome.stages
        self.folder = outcome.folder
        self.report = report
        self.warnings = list(warnings)
        self.exit_code = outcome.exit_code
        self._project = project

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """The metrics of every stage that has any, by name."""
        found = {name: stage.record for name, stage in self.stages.items()}
        return {name: record.metrics for name, record in found.items() if record and record.metrics}

    def require(self) -> None:
        """Check that the run is done.

        Raises:
            RunError: a stage failed.
            KeyboardInterrupt: the run was interrupted.
        """
        if self.status == "interrupted":
            raise KeyboardInterrupt(str(self))
        failed = {name: s.error for name, s in self.stages.items() if s.status == "failed"}
        if failed:
            told = [failure_text({"stage": name, "error": error}) for name, error in failed.items()]
            raise RunError(self, *"\n".join(told).split("\n", 1))

    def as_json(self) -> dict[str, Any]:
        """Return the run as ``llmpipe run --json`` prints it."""
        return {
            "run": self.id,
            "spec": str(self._project.graph.spec.path),
            "status": self.status,
            "stages": {name: self._stage_json(stage) for name, stage in self.stages.items()},
        }

    def _stage_json(self, outcome: StageOutcome) -> dict[str, Any]:
        record = outcome.record
        data: dict[str, Any] = {
            "kind": outcome.kind,
            "status": outcome.status,
            "key": outcome.key,
            "seconds": outcome.seconds,
            "causes": outcome.causes,
            **({"kept": True} if outcome.kept else {}),
            "outputs": {},
            "metrics": record.metrics if record else {},
        }
        if record:
            outputs = record.outputs.items()
            data["outputs"] = {n: str(self._project.store.output_path(o)) for n, o in outputs}
        if outcome.error:
            data["error"] = outcome.error
        return data

    def __repr__(self) -> str:
        statuses = [stage.status for stage in self.stages.values()]
        return closing_text(self.status, self.seconds, statuses, self.id)

    def _repr_html_(self) -> str:
        from llmpipe.api.notebook import run_table

        return run_table(self)


class PlannedRun:
    """A run that has not started.

    Raises:
        SpecError: data that a package carries is missing, with all else that is.
    """

    def __init__(self, project: Project, options: RunOptions) -> None:
        self.project, self.options = project, options
        plans = make_plan(project, options.forced, options.kept)
        only = options.only
        self.stages: dict[str, StagePlan] = {
            name: plan for name, plan in plans.items() if only is None or name in only
        }
        self._stale = [plan.id for plan in self.stages.values() if plan.status == "run"]
        lacking = project.graph.lacking_data()
        if lacking:  # all else that is missing is told with it
            preflight(project, list(dict.fromkeys([*self._stale, *lacking])), strict=True)
        if options.locked:
            from llmpipe.runner.drift import check_locked

            check_locked(project, self.stages)

    def plan(self, only: Sequence[str] | None = None) -> Plan:
        """Return the plan, or that of ``only`` these stages, judged as far as that is quick.

        Raises:
            SpecError: a stage's settings are wrong.
        """
        shown = self.stages if only is None else {name: self.stages[name] for name in only}
        stale = [name for name in self._stale if name in shown]
        warnings = review(self.project, stale) + self.project.lock.warning()
        return Plan(self.project, shown, warnings, estimates_of(self.project, stale))

    def check(self, *, room: bool = True, fit: bool = True) -> list[str]:
        """Check all that the run takes; return what is only warned of.

        Args:
            room: whether a disk that seems too small is an error.
            fit: whether a stage that needs more memory than there is is an error.

        Raises:
            SpecError: a stage's settings are wrong or it does not fit into memory, or the lock file
                is that of another spec.
            MissingDependencyError: packages, programs or data are missing.
            StoreError: the disk seems too small.
        """
        from llmpipe.runner.capacity import require_fit
        from llmpipe.runner.occupancy import orphans

        if self._locks:
            self.project.lock.check()  # it may be written in the end
        warnings = preflight(self.project, self._stale, strict=True, room=room)
        if fit:
            require_fit(self.project, self._stale)
        found = orphans(self.project.store.home)
        return [*warnings, *(f"an earlier run's {line}" for line in found)]

    @property
    def _locks(self) -> bool:
        """Whether the run writes the lock file."""
        return not (self.options.settings or self.options.locked)

    def execute(self, listeners: Collection[Listener] = (), warnings: Sequence[str] = ()) -> Run:
        """Bring every stage up to date, and write the lock file and the run's page.

        Args:
            listeners: called with each event as it happens.
            warnings: what `check` returned.

        Raises:
            StoreError: the store cannot be written.
        """
        from llmpipe.runner.recall import remember
        from llmpipe.runner.run import run_project

        project = self.project
        outcome = run_project(project, self.stages, self.options, listeners)
        if self._locks:
            records = {o.id: o.record for o in outcome.stages.values() if o.record is not None}
            project.lock.write(records, project.used_commits())
            project.forget_removed()
            if self.options.only is None:
                remember(project, outcome)
        report, problem = _write_report(project, outcome)
        return Run(project, outcome, report, [*warnings, *problem])


def _write_report(project: Project, outcome: RunOutcome) -> tuple[Path | None, list[str]]:
    """Write the run's page, unless nothing ran; that it cannot be written is only warned of."""
    if outcome.status == "done" and all(s.started is None for s in outcome.stages.values()):
        return None, []
    try:
        from llmpipe.report.page import write_report

        return write_report(project.store, outcome.folder), []
    except Exception as error:  # whatever it is: what ran has run
        return None, [f"the run's report could not be written: {error}"]
