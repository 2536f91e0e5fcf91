"""``llmpipe run``: bring every stage of a spec up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from llmpipe.cli.options import add_spec, find_stages, open_project, parser, print_json
from llmpipe.cli.plan import plan_json, print_plan
from llmpipe.runner.console import make_view, seconds_text
from llmpipe.runner.drift import check_locked
from llmpipe.runner.outcome import RunOutcome, StageOutcome
from llmpipe.runner.plan import StagePlan, describe, make_plan
from llmpipe.runner.preflight import preflight
from llmpipe.runner.project import Project
from llmpipe.runner.scheduler import RunOptions, run_project

LONG = 3600.0
"""Seconds from which on a stage is not repeated for a newer tool without asking."""


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parse(argv)
    project = open_project(options, remember=not options.dry_run)
    only = _wanted(project, options)
    forced = _forced(project, options)
    kept = {stage for name in options.keep for stage in find_stages(project.graph, name)}
    plans = make_plan(project, forced, kept)
    if only is not None:
        plans = {name: plan for name, plan in plans.items() if name in only}
    if options.locked:
        check_locked(project, plans)
    if options.dry_run:
        if options.json:
            print_json(plan_json(project, plans))
        else:
            print_plan(plans)
        return 0
    preflight(project, [p.id for p in plans.values() if p.status == "run"], strict=True)
    if not options.yes and not _agreed(plans.values()):
        return 130
    view = make_view(quiet=options.quiet)
    how = RunOptions(only, forced, kept, options.keep_going, options.jobs, tuple(options.settings))
    try:
        outcome = run_project(project, plans, how, [view])
    finally:
        view.close()
    if not options.settings and not options.locked:
        records = {o.id: o.record for o in outcome.stages.values() if o.record is not None}
        project.lock.write(records, project.used_commits())
    if options.json:
        print_json(run_json(project, outcome))
    if not options.quiet:
        print(_closing_line(outcome, options.spec), file=sys.stderr)
    return outcome.exit_code


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
        "outputs": {},
        "metrics": record.metrics if record else {},
    }
    if record:
        outputs = record.outputs.items()
        data["outputs"] = {name: str(project.store.output_path(o)) for name, o in outputs}
    if outcome.error:
        data["error"] = outcome.error
    return data


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments = parser(
        "run", "Bring every stage of a spec up to date; what is cached is not redone."
    )
    add_spec(arguments)
    arguments.add_argument(
        "--only",
        metavar="STAGE",
        action="append",
        help="this stage and what it needs, nothing else (repeatable)",
    )
    arguments.add_argument(
        "--from",
        metavar="STAGE",
        action="append",
        default=[],
        dest="from_",
        help="run this stage and all that hangs on it, even when cached (repeatable)",
    )
    arguments.add_argument(
        "--force",
        metavar="STAGE",
        action="append",
        default=[],
        help="run this stage even when cached (repeatable)",
    )
    arguments.add_argument(
        "--keep",
        metavar="STAGE",
        action="append",
        default=[],
        help="take what this stage made last as fresh, from now on (repeatable)",
    )
    arguments.add_argument(
        "-j",
        "--jobs",
        type=_count,
        metavar="N",
        help="stages that may run at once; by default as many as the machine holds",
    )
    arguments.add_argument(
        "-k",
        "--keep-going",
        action="store_true",
        help="after a failure, go on with the stages that do not hang on it",
    )
    arguments.add_argument(
        "-n", "--dry-run", action="store_true", help="show the plan and run nothing"
    )
    arguments.add_argument(
        "--locked",
        action="store_true",
        help="refuse what differs from the lock file: settings, inputs, versions, exact artifacts",
    )
    arguments.add_argument(
        "-y", "--yes", action="store_true", help="do not ask before long work is done again"
    )
    arguments.add_argument("-q", "--quiet", action="store_true", help="show failures only")
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    return arguments.parse_args(argv)


def _wanted(project: Project, options: argparse.Namespace) -> set[str] | None:
    if options.only is None:
        return None
    wanted: set[str] = set()
    for name in options.only:
        for stage in find_stages(project.graph, name):
            wanted |= {stage, *project.graph.needs(stage)}
    return wanted


def _forced(project: Project, options: argparse.Namespace) -> set[str]:
    forced = {stage for name in options.force for stage in find_stages(project.graph, name)}
    for name in options.from_:
        for stage in find_stages(project.graph, name):
            forced |= {stage, *project.graph.dependents(stage)}
    return forced


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number from 1 on is needed, not {text!r}")
    return int(text)


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


def _closing_line(outcome: RunOutcome, spec: str) -> str:
    counts: dict[str, int] = {}
    for stage in outcome.stages.values():
        counts[stage.status] = counts.get(stage.status, 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    line = f"{outcome.status} in {seconds_text(outcome.seconds)}: {told} (run {outcome.id})"
    if outcome.status != "done":
        line += f"\nwhat is finished is kept; go on with: llmpipe run {spec}"
    return line
