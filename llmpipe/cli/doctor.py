"""``llmpipe doctor``: show what this machine has, or what a spec needs and how to install it."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from llmpipe import __version__
from llmpipe.cli.options import add_spec, open_pipeline, parser, print_json
from llmpipe.errors import MissingDependencyError, UsageError
from llmpipe.needs import Need, extras, install_lines, packages, with_mends
from llmpipe.runner.messages import size_text
from llmpipe.runner.needs import Needed, table
from llmpipe.runner.resources import Machine


def main(argv: list[str]) -> int:
    """Run the command; if the spec's requirements are not met, the exit code is that of a run."""
    options = _parse(argv)
    rows = open_pipeline(options, absent=True).requirements() if options.spec else _of_machine()
    missing = [row for row in rows if row.blocks]
    commands = install_lines(row.need for row in missing)
    if options.json:
        found = {"ready": not missing, "needs": list(map(_as_json, rows)), "commands": commands}
        print_json({"spec": options.spec, **found})
    else:
        _print(options, rows, commands)
    return MissingDependencyError.exit_code if missing else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments = parser(
        "doctor",
        "Show what a spec needs on this machine, what is missing, and how to install it:\n"
        "packages, the converter, models and data, GPUs, memory, disk, ports and secrets.",
    )
    add_spec(arguments, without="what is installed here")
    arguments.add_argument("--json", action="store_true", help="print JSON")
    options = arguments.parse_args(argv)
    if not options.spec and (options.settings or options.profiles):
        raise UsageError("--set and --profile have no effect without SPEC")
    return options


def _of_machine() -> list[Needed]:
    """Return the packages of every extra and the converter; they may not be needed."""
    from dataclasses import replace

    from llmpipe.backends.llama_cpp import converter

    found: dict[str, Needed] = {}
    for extra, names in extras().items():
        for need in packages(*sorted(names)):
            found.setdefault(need.name, Needed(need)).stages[extra] = None
    rows = [*found.values(), Needed(converter.need(), {"gguf": None})]
    for row, need in zip(rows, with_mends(row.need for row in rows), strict=True):
        row.need = replace(need, advisory=True)
    return rows


def _print(options: argparse.Namespace, rows: list[Needed], commands: list[str]) -> None:
    if options.spec:
        print(f"{options.spec} needs:")
    else:
        print(f"llmpipe {__version__}, Python {sys.version.split()[0]}, {_machine()}")
        print("packages, by extra:")
    lines = table(rows, states=True) or ["nothing besides llmpipe"]
    print("\n".join(f"  {line}" for line in lines))
    if commands:
        print("to install what is missing:", *(f"  {line}" for line in commands), sep="\n")
    elif options.spec:
        print("nothing is missing")


def _machine() -> str:
    """Describe this machine in a few words."""
    here, free = Machine.here(), shutil.disk_usage(Path()).free
    gpus = f"{len(here.gpus)} GPU{'s' * (len(here.gpus) > 1)}" if here.gpus else "no GPU"
    threads = f"{here.cpus} CPU thread{'s' * (here.cpus > 1)}"
    return f"{threads}, {size_text(here.memory)} of memory, {gpus}, {size_text(free)} of disk free"


def _as_json(row: Needed) -> dict[str, Any]:
    need: Need = row.need
    return {
        "what": need.what,
        "name": need.name,
        "here": need.here,
        "needed": not need.advisory,
        "stages": list(row.stages),
        "mend": None if need.here else need.mend,
    }
