"""Bring the stages of a spec up to date, as the options of ``llmpipe run`` say."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable

from llmpipe.api.running import PlannedRun, Run
from llmpipe.cli.main import unheard
from llmpipe.cli.options import open_pipeline, print_json, print_warnings
from llmpipe.runner.console import make_view
from llmpipe.runner.messages import describe, overlaid, seconds_text
from llmpipe.runner.plan import StagePlan

LONG = 3600.0
"""Seconds from which a stage is repeated for a newer tool only after asking."""


def run_stages(options: argparse.Namespace) -> int:
    """Run what the parsed options of ``llmpipe run`` ask for; return the exit code."""
    will_run = not options.dry_run
    planned = open_pipeline(options, remember=will_run, absent=will_run).prepare(
        only=options.only,
        from_=options.from_,
        force=options.force,
        resample=options.resample,
        keep=options.keep,
        keep_going=options.keep_going,
        jobs=options.jobs,
        locked=options.locked,
        spelling=lambda option, stage: f"--{option} {stage}",
    )
    if options.dry_run:
        return _show(planned, options)
    warnings = planned.check(room=not options.yes, fit=not options.ignore_estimate)
    if not options.quiet:
        with unheard(sys.stderr):
            print_warnings(warnings)
    if not options.yes and not _agreed(planned.stages.values()):
        return 130
    view = make_view(quiet=options.quiet, plain=options.plain)
    try:
        run = planned.execute([view])
    finally:
        view.close()
    with unheard(sys.stderr):
        print_warnings(run.warnings)
    if options.json:
        with unheard(sys.stdout):
            print_json(run.as_json())
    if not options.quiet:
        with unheard(sys.stderr):
            print(_closing_line(run, options), file=sys.stderr)
    return run.exit_code


def _show(planned: PlannedRun, options: argparse.Namespace) -> int:
    """Show the plan and run nothing."""
    plan = planned.plan()
    if options.json:
        print_json(plan.as_json())
    else:
        print(plan)
        print_warnings(plan.warnings)
    return 0


def _agreed(plans: Iterable[StagePlan]) -> bool:
    """Ask, at a terminal, before hours of work are repeated only because a tool is newer."""
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


def _closing_line(run: Run, options: argparse.Namespace) -> str:
    line = repr(run)
    if run.status != "done":
        again = ["llmpipe", "run", options.spec, *overlaid(options.profiles, options.settings)]
        again += [part for stage in options.only or () for part in ("--only", stage)]
        line += f"\nfinished stages are kept; continue with: {shlex.join(again)}"
    if run.report is not None:
        line += f"\nreport: {run.report}"
    return line
