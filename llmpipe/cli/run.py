"""``llmpipe run``: bring every stage of a spec up to date."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from llmpipe.cli.options import add_spec, find_stage, open_project, parser, print_json
from llmpipe.cli.plan import plan_json, print_plan
from llmpipe.runner.console import make_view, seconds_text
from llmpipe.runner.plan import make_plan
from llmpipe.runner.preflight import preflight
from llmpipe.runner.project import Project
from llmpipe.runner.scheduler import RunOutcome, StageOutcome, run_project


def main(argv: list[str]) -> int:
    """Run the command."""
    options = _parse(argv)
    project = open_project(options, remember=not options.dry_run)
    only = _wanted(project, options)
    forced = _forced(project, options)
    plans = make_plan(project, forced)
    if only is not None:
        plans = {name: plan for name, plan in plans.items() if name in only}
    if options.dry_run:
        if options.json:
            print_json(plan_json(project, plans))
        else:
            print_plan(plans)
        return 0
    preflight(project, [p.id for p in plans.values() if p.status == "run"], strict=True)
    view = make_view(quiet=options.quiet)
    try:
        outcome = run_project(
            project,
            only=only,
            forced=forced,
            keep_going=options.keep_going,
            listeners=[view],
            settings=options.settings,
        )
    finally:
        view.close()
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
        "-k",
        "--keep-going",
        action="store_true",
        help="after a failure, go on with the stages that do not hang on it",
    )
    arguments.add_argument(
        "-n", "--dry-run", action="store_true", help="show the plan and run nothing"
    )
    arguments.add_argument("-q", "--quiet", action="store_true", help="show failures only")
    arguments.add_argument("--json", action="store_true", help="print the result as JSON")
    return arguments.parse_args(argv)


def _wanted(project: Project, options: argparse.Namespace) -> set[str] | None:
    if options.only is None:
        return None
    wanted: set[str] = set()
    for name in options.only:
        wanted |= {find_stage(project.graph, name), *project.graph.needs(name)}
    return wanted


def _forced(project: Project, options: argparse.Namespace) -> set[str]:
    forced = {find_stage(project.graph, name) for name in options.force}
    for name in options.from_:
        forced |= {find_stage(project.graph, name), *project.graph.dependents(name)}
    return forced


def _closing_line(outcome: RunOutcome, spec: str) -> str:
    counts: dict[str, int] = {}
    for stage in outcome.stages.values():
        counts[stage.status] = counts.get(stage.status, 0) + 1
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    seconds = seconds_text(sum(stage.seconds for stage in outcome.stages.values()))
    line = f"{outcome.status} in {seconds}: {told} (run {outcome.id})"
    if outcome.status != "done":
        line += f"\nwhat is finished is kept; go on with: llmpipe run {spec}"
    return line
