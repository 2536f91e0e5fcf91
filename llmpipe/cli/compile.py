"""``llmpipe compile``: write what a training stage would run, so that it runs without llmpipe."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from llmpipe.cli.options import add_spec, find_stage, open_project, parser
from llmpipe.errors import StoreError, UsageError
from llmpipe.runner.plan import make_plan
from llmpipe.runner.resources import Grant, Machine


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "compile",
        "Write what a stage would run: config, data, environment and run.sh. What the stage needs\n"
        "must be in the store: llmpipe run SPEC --only STAGE makes it.",
    )
    add_spec(arguments)
    arguments.add_argument("stage", metavar="STAGE", help="a train stage")
    arguments.add_argument("--out", metavar="DIR", type=Path, required=True, help="a new folder")
    options = arguments.parse_args(argv)
    project = open_project(options)
    node = project.graph.nodes[find_stage(project.graph, options.stage)]
    compile_to = getattr(node.stage, "compile_to", None)
    if compile_to is None:
        raise UsageError(
            f"a stage of kind {node.kind} runs inside llmpipe: there is nothing to compile"
        )
    if options.out.exists() and not options.out.is_dir():
        raise UsageError(f"{options.out} is a file", hint="name a new folder")
    if options.out.exists() and any(options.out.iterdir()):
        raise UsageError(f"{options.out} is not empty", hint="name a new folder")
    plans = make_plan(project)
    plan = plans[node.id]
    if plan.key is None:
        missing = [name for name in node.upstream() if plans[name].status == "run"]
        raise StoreError(
            f"{node.id} needs {', '.join(missing) or 'what is not looked up yet'}",
            hint="\n".join(f"llmpipe run {options.spec} --only {name}" for name in missing) or None,
        )
    records = {name: p.record for name, p in plans.items() if p.record is not None}
    with tempfile.TemporaryDirectory() as scratch:
        request = project.request(
            node,
            plan.key,
            plan.made_of,
            records,
            log=Path(scratch) / "log",
            grant=Grant(Machine.here().cpus),
        )
        context = request.context(Path(scratch), Path(scratch), _show_warning)
        for note in compile_to(context, options.out.absolute()):
            print(f"note: {note}", file=sys.stderr)
    print(options.out)
    return 0


def _show_warning(event: Any) -> None:
    if event["event"] == "warning":
        print(f"note: {event['message']}", file=sys.stderr)
