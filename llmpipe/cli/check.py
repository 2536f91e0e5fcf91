"""``llmpipe check``: hold any Axolotl YAML file against the Axolotl that is installed."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from llmpipe.backends.axolotl_check import check_block
from llmpipe.cli.options import parser, print_json
from llmpipe.errors import MissingDependencyError, Problem, SpecError
from llmpipe.spec.load import load_file


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "check",
        "Check an Axolotl YAML file as strictly as our own: every unknown key, at every level.",
    )
    arguments.add_argument("file", metavar="AXOLOTL_YAML", type=Path)
    arguments.add_argument("--json", action="store_true", help="print what is wrong as JSON")
    options = arguments.parse_args(argv)
    root = load_file(options.file)
    memo = Path(tempfile.gettempdir()) / f"llmpipe-check-{_user()}"
    result = check_block(root.plain(), memo_dir=memo, whole=True)
    if not result.installed:
        raise MissingDependencyError(
            "only an installed Axolotl can say what it knows", hint="pip install 'llmpipe[train]'"
        )
    problems = [
        Problem(
            f"{'.'.join(map(str, found.path))}: {found.message}" if found.path else found.message,
            root.locate(found.path, key=True),
            found.hint,
        )
        for found in result.problems
    ]
    if options.json:
        found = [problem.as_json() for problem in problems]
        print_json({"file": str(options.file), "axolotl": result.version, "problems": found})
        return SpecError.exit_code if problems else 0
    if problems:
        raise SpecError(problems)
    print(f"{options.file}: sound for axolotl {result.version}", file=sys.stderr)
    return 0


def _user() -> int:
    import os

    return os.getuid()
