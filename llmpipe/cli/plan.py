"""``llmpipe plan``: show what would run, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmpipe.cli.options import add_spec, find_stages, open_project, parser, print_json
from llmpipe.runner.plan import StagePlan, describe, make_plan
from llmpipe.runner.project import Project

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
    options = arguments.parse_args(argv)
    project = open_project(options)
    plans = make_plan(project)
    if options.stage:
        plans = {name: plans[name] for name in find_stages(project.graph, options.stage)}
    if options.json:
        print_json(plan_json(project, plans))
    elif options.stage:
        for plan in plans.values():
            print_stage(plan)
    else:
        print_plan(plans)
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
    """Print one line per stage and a line per cause."""
    width = max(len(name) for name in plans)
    for plan in plans.values():
        derived = f"  (derived for {plan.derived_for})" if plan.derived_for else ""
        print(f"{plan.id:<{width}}  {plan.kind:<11}  {plan.status}{derived}")
        for cause in plan.causes:
            print(f"{'':<{width}}  because {describe(cause)}")
    runs = sum(plan.status == "run" for plan in plans.values())
    count = f"{len(plans)} stage{'' if len(plans) == 1 else 's'}"
    print(f"{count}: {runs} to run, {len(plans) - runs} cached")


def print_stage(plan: StagePlan) -> None:
    """Print all that is known of one stage: its key, what that is made of, and why it would run."""
    import yaml

    print(f"{plan.id} ({plan.kind}): {plan.status}")
    for cause in plan.causes:
        print(f"  because {describe(cause)}")
    print(f"key: {plan.key or 'not known before what it needs has run'}")
    print("made of:")
    text = yaml.safe_dump(dict(plan.made_of), sort_keys=True, allow_unicode=True, width=100)
    print("\n".join(f"  {line}" for line in text.splitlines()))
