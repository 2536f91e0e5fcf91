"""Decide during a run what happens to a stage whose upstream stages have concluded.

The plan was made before the run. If an upstream stage had to run, the key of the stage is known
only now, and it may turn out to be cached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from llmpipe.backends.huggingface import hub
from llmpipe.canonical import digest
from llmpipe.errors import LlmpipeError
from llmpipe.graph.model import StageNode
from llmpipe.graph.sources import HubRepo
from llmpipe.runner.interrupt import Interrupt
from llmpipe.runner.options import RunOptions
from llmpipe.runner.outcome import StageOutcome
from llmpipe.runner.plan import StagePlan, plan_stage
from llmpipe.runner.project import Project
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.resources import Machine, shortage


@dataclass(frozen=True, slots=True)
class Replanner:
    """Replans the stages of one run. ``plans`` was made before the run."""

    project: Project
    plans: Mapping[str, StagePlan]
    options: RunOptions
    machine: Machine
    interrupt: Interrupt

    def replan(
        self, node: StageNode, records: Mapping[str, KeyRecord], outcome: StageOutcome
    ) -> StagePlan | None:
        """Plan one stage and note the result in its outcome; return None if it cannot run.

        ``records`` holds those of the concluded stages.
        """
        try:
            plan = self._plan(node, records)
        except LlmpipeError as error:
            outcome.status = "failed"
            outcome.error = {"message": error.message, "hint": error.hint}
            return None
        except KeyboardInterrupt:
            outcome.status = "interrupted"
            return None
        lacks = shortage(self.machine, node.config) if plan.status == "run" else None
        if lacks:
            outcome.status, outcome.error = "failed", {"message": lacks[1], "hint": None}
            return None
        if plan.status == "cached":
            outcome.status, outcome.record = "cached", plan.record
            outcome.key, outcome.causes, outcome.kept = plan.key, plan.causes, plan.kept
            if plan.kept and node.id in self.options.kept:
                self._keep(node, plan, outcome)
            elif plan.record is not None and plan.record.seal is None:
                self.project.store.save(plan.record)  # valid from now on
        return plan

    def _plan(self, node: StageNode, records: Mapping[str, KeyRecord]) -> StagePlan:
        plan = self.plans.get(node.id)
        if plan is not None and plan.status == "cached" and not plan.kept:
            return plan
        with self.interrupt.raising():
            self._resolve_hub(node)
        return plan_stage(
            self.project,
            node,
            records,
            forced=node.id in self.options.forced,
            kept=node.id in self.options.kept,
        )

    def _resolve_hub(self, node: StageNode) -> None:
        """Resolve unpinned hub repositories to commits, once and for all."""
        for source in node.sources():
            if isinstance(source, HubRepo) and self.project.commit_of(source) is None:
                commit = hub.resolve_commit(source.repo, source.revision, rows=source.holds_rows)
                self.project.remember_commit(source, commit)

    def _keep(self, node: StageNode, plan: StagePlan, outcome: StageOutcome) -> None:
        """Record a stage's last artifacts under the key that it would have now."""
        assert plan.record is not None
        if (
            plan.key_inputs["inputs"].keys() == node.bindings.keys()
        ):  # else the key is not known yet
            outcome.key = digest(plan.key_inputs)
            outcome.record = msgspec.structs.replace(
                plan.record, key=outcome.key, ingredients=dict(plan.key_inputs), kept_from=plan.key
            )
            self.project.store.save(outcome.record)
