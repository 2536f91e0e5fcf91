"""``llmpipe plan``: show what would run, and why."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from llmpipe.cli.options import (
    add_spec,
    find_stages,
    open_project,
    parser,
    print_json,
    print_warnings,
)
from llmpipe.runner.messages import describe
from llmpipe.runner.plan import StagePlan, make_plan
from llmpipe.runner.preflight import review
from llmpipe.runner.project import Project

SHOWN_CAUSES = 6
"""Causes of one stage that the plan of all shows; below a sweep there are hundreds."""

STALE = 3
"""The exit code of ``--check`` when a stage would run."""


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser("plan", "Show, for every stage, whether it is cached or would run, and why.")
    add_spec(arguments)
    arguments.add_argument("stage", metavar="STAGE", nargs="?", help="one stage only, in depth")
    arguments.add_argument(
        "--check", action="store_true", help=f"exit with {STALE} when a stage would run"
    )
    arguments.add_argument("--json", action="store_true", help="print the plan as JSON")
    options = arguments.parse_intermixed_args(argv)
    project = open_project(options)
    plans = make_plan(project)
    if options.stage:
        plans = {name: plans[name] for name in find_stages(project.graph, options.stage)}
    warnings = review(project, [plan.id for plan in plans.values() if plan.status == "run"])
    warnings += project.lock.warning()
    if options.json:
        print_json({**plan_json(project, plans), "warnings": warnings})
    elif options.stage:
        for plan in plans.values():
            print_stage(plan)
    else:
        print_plan(plans)
    print_warnings([] if options.json else warnings)
    stale = any(plan.status == "run" for plan in plans.values())
    return STALE if options.check and stale else 0


def plan_json(project: Project, plans: Mapping[str, StagePlan]) -> dict[str, Any]:
    """Give the plan as ``--json`` prints it."""
    status = "run" if any(plan.status == "run" for plan in plans.values()) else "cached"
    return {
        "spec": str(project.graph.spec.path),
        "status": status,
        "stages": {name: plan.as_json() for name, plan in plans.items()},
    }


def print_plan(plans: Mapping[str, StagePlan]) -> None:
    """Print one line per stage and a line per cause; in the end, how much there is to do."""
    width = max(len(name) for name in plans)
    for plan in plans.values():
        derived = f"  (derived for {plan.derived_for})" if plan.derived_for else ""
        print(f"{plan.id:<{width}}  {plan.kind:<11}  {_status(plan)}{derived}")
        _print_causes(plan, " " * (width + 2), SHOWN_CAUSES)
    to_run = [plan for plan in plans.values() if plan.status == "run"]
    count = f"{len(plans)} stage{'' if len(plans) == 1 else 's'}"
    cached = len(plans) - len(to_run)
    print(f"{count}: {len(to_run)} to run{_in_all(to_run)}, {cached} cached")


def print_stage(plan: StagePlan) -> None:
    """Print all that is known of one stage: its key, what that is made of, and why it would run."""
    import yaml

    print(f"{plan.id} ({plan.kind}): {_status(plan)}")
    _print_causes(plan, "  ")
    print(f"key: {plan.key or 'not known before what it needs has run'}")
    print("made of:")
    text = yaml.safe_dump(dict(plan.made_of), sort_keys=True, allow_unicode=True, width=100)
    print("\n".join(f"  {line}" for line in text.splitlines()))


def _status(plan: StagePlan) -> str:
    """Say what is to happen to a stage, and how long that will take."""
    if plan.kept:
        return "cached, kept as it is"
    if plan.status == "run" and plan.seconds is not None:
        return f"run, {about(plan.seconds)}"
    if plan.status == "run" and {cause["cause"] for cause in plan.causes} != {"new"}:
        return "run, time unknown"
    return plan.status


def _print_causes(plan: StagePlan, indent: str, most: int | None = None) -> None:
    word = "although" if plan.kept else "because"
    for cause in plan.causes[:most]:
        print(f"{indent}{word} {describe(cause)}")
    left = 0 if most is None else len(plan.causes) - most
    if left > 0:
        print(f"{indent}and for {left} more: llmpipe plan SPEC {shlex.quote(plan.id)} lists them")


def _in_all(plans: Sequence[StagePlan]) -> str:
    """Say how long stages take one after the other, as far as that is known."""
    known = [plan.seconds for plan in plans if plan.seconds is not None]
    if not known:
        return ""
    unknown = len(plans) - len(known)
    rest = f" and {unknown} of unknown length" if unknown else ""
    return f" ({about(sum(known))}{rest})"


def about(seconds: float) -> str:
    """Give an estimate of time, no more exactly than earlier runs tell it."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 60:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60} min"
