"""``llmpipe plan``: show what would run, and why."""

from __future__ import annotations

from llmpipe.api.plan import stage_text
from llmpipe.cli.options import add_spec, open_pipeline, parser, print_json, print_warnings

STALE = 3
"""The exit code of ``--check`` when a stage would run."""


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser("plan", "Show, for every stage, whether it is cached or would run, and why.")
    add_spec(arguments)
    arguments.add_argument(
        "stage", metavar="STAGE", nargs="?", help="show only this stage, in detail"
    )
    arguments.add_argument(
        "--check", action="store_true", help=f"exit with {STALE} when a stage would run"
    )
    arguments.add_argument("--json", action="store_true", help="print the plan as JSON")
    options = arguments.parse_intermixed_args(argv)
    plan = open_pipeline(options).plan(options.stage)
    if options.json:
        print_json(plan.as_json())
    elif options.stage:
        print("\n".join(map(stage_text, plan.values())))
    else:
        print(plan)
    print_warnings([] if options.json else plan.warnings)
    return STALE if options.check and plan.to_run else 0
