"""``llmpipe check``: check any Axolotl YAML file against the installed Axolotl."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmpipe.backends.axolotl.check import CheckResult, check_block
from llmpipe.backends.axolotl.config import OWNED, BlockProblem, fit_device
from llmpipe.backends.axolotl.file import read_axolotl_file
from llmpipe.backends.axolotl.paths import is_path, missing_paths
from llmpipe.backends.device import Device, detect, named_device
from llmpipe.cli.options import parser, print_json, print_warnings
from llmpipe.errors import (
    MissingDependencyError,
    Problem,
    SpecError,
    StageError,
    UsageError,
)
from llmpipe.spec.load import load_file, place_in


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "check",
        "Check an Axolotl YAML file: report unknown keys at every level, what Axolotl refuses,\n"
        "and what a train stage would refuse or ignore on this machine, or on another device.",
    )
    arguments.add_argument("file", metavar="AXOLOTL_YAML", type=Path)
    arguments.add_argument(
        "--device",
        metavar="DEVICE",
        help="what it will run on: cpu, cuda or cuda:N for N GPUs (this machine's)",
    )
    arguments.add_argument("--json", action="store_true", help="print problems as JSON")
    options = arguments.parse_args(argv)
    block = read_foreign(options.file)
    device = named_device(options.device) if options.device else detect()
    found = list(_judged(block, options.file, device))
    result = ask_axolotl(block, device)
    if not result.installed:
        raise MissingDependencyError(
            "checking needs Axolotl, which is not installed", hint="pip install 'llmpipe[train]'"
        )
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for said in dict.fromkeys([*found, *result.problems]):
        name = ".".join(map(str, said.path))
        message = f"{name}: {said.message}" if name else said.message
        where = place_in(options.file, said.path)
        (warnings if said.warning else problems).append(Problem(message, where, said.hint))
    if options.json:
        print_json(
            {
                "file": str(options.file),
                "axolotl": result.version,
                **(SpecError(problems).as_json() if problems else {"problems": [], "more": 0}),
                "warnings": [problem.as_json() for problem in warnings],
            }
        )
        return SpecError.exit_code if problems else 0
    if problems:
        raise SpecError(problems)
    print_warnings(
        [f"{p.location}: {p.message}" + (f" ({p.hint})" if p.hint else "") for p in warnings]
    )
    print(f"{options.file}: valid for axolotl {result.version}", file=sys.stderr)
    return 0


def read_foreign(file: Path) -> dict[str, Any]:
    """Read the file as a train stage does.

    Raises:
        SpecError: It cannot be read, and the place of the mistake is known.
        UsageError: It cannot be read, or is a spec.
    """
    try:
        return read_axolotl_file(file, str(file))
    except StageError as error:
        load_file(file)  # raises with the place
        raise UsageError(error.message, hint=error.hint) from None


def _judged(block: Mapping[str, Any], file: Path, device: Device) -> Iterator[BlockProblem]:
    """Yield the findings of a train stage with this file on a device, and missing files."""
    from llmpipe.stages.train_datasets import dataset_problems
    from llmpipe.stages.train_review import noted, setting_problems

    evaluates = bool(block.get("test_datasets") or block.get("val_set_size"))
    yield from setting_problems(block, evaluates=evaluates)
    own = {key: value for key, value in block.items() if key not in OWNED}
    base = block.get("base_model")
    if isinstance(base, str) and is_path(base):
        own["base_model"] = base
    yield from missing_paths(own, Path.cwd())
    yield from dataset_problems(block, (Path.cwd(),))
    yield from noted(fit_device(block, device)[1], block)


def ask_axolotl(block: Mapping[str, Any], device: Device) -> CheckResult:
    """Ask Axolotl about a file as a device can run it."""
    document, _ = fit_device(block, device)
    memo = Path(tempfile.gettempdir()) / f"llmpipe-check-{_user()}"
    return check_block(block, document, memo_dir=memo, device=device)


def _user() -> int:
    import os

    return os.getuid()
