"""Bring the stages of a spec up to date as ``llmpipe run`` is asked to."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmpipe.cli.main import unheard
from llmpipe.cli.options import find_stages, open_project, print_json, print_warnings
from llmpipe.cli.plan import plan_json, print_plan
from llmpipe.errors import UsageError
from llmpipe.runner.console import make_view
from llmpipe.runner.drift import check_locked
from llmpipe.runner.messages import closing_text, describe, overlaid, seconds_text
from llmpipe.runner.occupancy import orphans
from llmpipe.runner.options import RunOptions
from llmpipe.runner.outcome import RunOutcome, StageOutcome
from llmpipe.runner.plan import StagePlan, make_plan
from llmpipe.runner.preflight import preflight, review
from llmpipe.runner.project import Project
from llmpipe.runner.recall import remember
from llmpipe.runner.scheduler import run_project

LONG = 3600.0
"""Seconds from which on a stage is not repeated for a newer tool without asking."""


def run_stages(options: argparse.Namespace) -> int:
    """Run what the parsed arguments of ``llmpipe run`` ask for; give the exit code."""
    will_run = not options.dry_run
    project = open_project(options, remember=will_run, absent=will_run)
    only = _wanted(project, options)
    _check_resampled(project, options)
    forced = _forced(project, options)
    kept = _kept(project, options, forced)
    plans = make_plan(project, forced, kept)
    if only is not None:
        plans = {name: plan for name, plan in plans.items() if name in only}
    stale = _stale(plans)
    lacking = project.graph.lacking_data()
    if lacking:  # all else that is missing is told with it
        preflight(project, list(dict.fromkeys([*stale, *lacking])), strict=True)
    if options.locked:
        check_locked(project, plans)
    elif not (options.settings or options.dry_run):
        project.lock.check()  # it may be written in the end
    if options.dry_run:
        warnings = review(project, stale) + project.lock.warning()
        if options.json:
            print_json({**plan_json(project, plans), "warnings": warnings})
        else:
            print_plan(plans)
            print_warnings(warnings)
        return 0
    warnings = preflight(project, stale, strict=True, room=not options.yes)
    warnings += [f"an earlier run's {line}" for line in orphans(project.store.home)]
    if not options.quiet:
        with unheard(sys.stderr):
            print_warnings(warnings)
    if not options.yes and not _agreed(plans.values()):
        return 130
    view = make_view(quiet=options.quiet, plain=options.plain)
    how = RunOptions(
        only=only,
        forced=forced,
        resampled=_stages(project, options.resample),
        kept=kept,
        keep_going=options.keep_going,
        jobs=options.jobs,
        settings=tuple(options.settings),
        locked=options.locked,
    )
    try:
        outcome = run_project(project, plans, how, [view])
    finally:
        view.close()
    if not options.settings and not options.locked:
        records = {o.id: o.record for o in outcome.stages.values() if o.record is not None}
        project.lock.write(records, project.used_commits())
        project.forget_removed()
        if only is None:
            remember(project, outcome)
    report = _write_report(project, outcome)
    if options.json:
        with unheard(sys.stdout):
            print_json(run_json(project, outcome))
    if not options.quiet:
        with unheard(sys.stderr):
            print(_closing_line(outcome, options, report), file=sys.stderr)
    return outcome.exit_code


def _stale(plans: Mapping[str, StagePlan]) -> list[str]:
    return [plan.id for plan in plans.values() if plan.status == "run"]


def run_json(project: Project, outcome: RunOutcome) -> dict[str, Any]:
    """Give the run as ``--json`` prints it."""
    return {
        "run": outcome.id,
        "spec": str(project.graph.spec.path),
        "status": outcome.status,
        "stages": {name: _stage_json(project, o) for name, o in outcome.stages.items()},
    }


def _stage_json(project: Project, outcome: StageOutcome) -> dict[str, Any]:
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
        data["outputs"] = {name: str(project.store.output_path(o)) for name, o in outputs}
    if outcome.error:
        data["error"] = outcome.error
    return data


def _wanted(project: Project, options: argparse.Namespace) -> set[str] | None:
    """Give the stages that ``--only`` leaves.

    Raises:
        UsageError: another option is for a stage that is not among them.
    """
    if options.only is None:
        return None
    wanted: set[str] = set()
    for name in options.only:
        for stage in find_stages(project.graph, name):
            wanted |= {stage, *project.graph.needs(stage)}
    for option in ("from", "force", "resample", "keep"):
        for name in getattr(options, "from_" if option == "from" else option):
            if wanted.isdisjoint(find_stages(project.graph, name)):
                only = " ".join(f"--only {stage}" for stage in options.only)
                hint = f"neither {name} nor what needs it is asked for"
                raise UsageError(f"--{option} {name} does nothing with {only}", hint=hint)
    return wanted


def _check_resampled(project: Project, options: argparse.Namespace) -> None:
    """Refuse to draw anew what is not drawn.

    Raises:
        UsageError: a stage is of a kind that journals no replies.
    """
    for name in options.resample:
        node = project.graph.nodes[find_stages(project.graph, name)[0]]
        if not getattr(node.stage, "stochastic", False):  # a kind from elsewhere may not say
            what = f"--resample {name}: a stage of kind {node.kind} journals no replies"
            raise UsageError(what, hint=f"to run it again: --force {name}")


def _forced(project: Project, options: argparse.Namespace) -> set[str]:
    forced = _stages(project, [*options.force, *options.resample])
    for name in options.from_:
        for stage in find_stages(project.graph, name):
            forced |= {stage, *project.graph.dependents(stage)}
    return forced


def _kept(project: Project, options: argparse.Namespace, forced: set[str]) -> set[str]:
    """Give the stages to keep.

    Raises:
        UsageError: there is nothing to keep, or a stage is to be made again at the same time.
    """
    kept: set[str] = set()
    for name in options.keep:
        found = set(find_stages(project.graph, name))
        if found & forced:
            raise UsageError(f"--keep {name}: it is to be run again by --force or --from")
        if not any(map(project.last_record, found)):
            hint = "it is to be made first; without --keep it will be"
            raise UsageError(f"--keep {name}: the store has nothing that it made", hint=hint)
        kept |= found
    return kept


def _stages(project: Project, names: Iterable[str]) -> set[str]:
    return {stage for name in names for stage in find_stages(project.graph, name)}


def _agreed(plans: Iterable[StagePlan]) -> bool:
    """Ask, on a terminal, before hours of work are repeated only because a tool is newer."""
    causes = {"tool", "version"}
    repeated = [
        plan
        for plan in plans
        if plan.status == "run"
        and (plan.seconds or 0) >= LONG
        and {cause["cause"] for cause in plan.causes} <= causes
    ]
    for plan in repeated:
        because = "; ".join(describe(cause) for cause in plan.causes)
        took = seconds_text(plan.seconds or 0)
        print(f"{plan.id} took {took} and would run again: {because}", file=sys.stderr)
        print(f"  to keep what it made: --keep {plan.id}", file=sys.stderr)
    if not repeated or not sys.stdin.isatty():
        return True
    print("run again? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _write_report(project: Project, outcome: RunOutcome) -> Path | None:
    """Write the run's page, unless nothing ran; that it cannot be written is no failure."""
    if outcome.status == "done" and all(s.started is None for s in outcome.stages.values()):
        return None
    try:
        from llmpipe.report.page import write_report

        return write_report(project.store, outcome.folder)
    except Exception as error:  # whatever it is: what ran has run
        with unheard(sys.stderr):
            print(f"the run's report could not be written: {error}", file=sys.stderr)
        return None


def _closing_line(outcome: RunOutcome, options: argparse.Namespace, report: Path | None) -> str:
    statuses = [stage.status for stage in outcome.stages.values()]
    line = closing_text(outcome.status, outcome.seconds, statuses, outcome.id)
    if outcome.status != "done":
        again = ["llmpipe", "run", options.spec, *overlaid(options.profiles, options.settings)]
        again += [part for stage in options.only or () for part in ("--only", stage)]
        line += f"\nwhat is finished is kept; go on with: {shlex.join(again)}"
    if report is not None:
        line += f"\nreport: {report}"
    return line
