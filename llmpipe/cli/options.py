"""The arguments that several commands share."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.errors import MOST_PROBLEMS, UsageError
from llmpipe.runner.messages import overlaid
from llmpipe.runner.store import Store, home_for
from llmpipe.terminal import json_safe
from llmpipe.type_errors import TYPE_WORDS, bounded, mismatch

if TYPE_CHECKING:
    from llmpipe.api.pipeline import Pipeline


def parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of one command."""
    return argparse.ArgumentParser(
        prog=f"llmpipe {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_spec(arguments: argparse.ArgumentParser, *, without: str | None = None) -> None:
    """Add the spec, its profiles and its settings.

    Args:
        arguments: Those of the command.
        without: What the command does without a spec, if it does not require one.
    """
    about = "the YAML file" if without is None else f"the YAML file; without it, {without}"
    nargs = None if without is None else "?"
    arguments.add_argument("spec", metavar="SPEC", nargs=nargs, help=about)
    arguments.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="change a value: params.x=… or stages.sft.axolotl.max_steps=5 (repeatable)",
    )
    arguments.add_argument(
        "--profile",
        metavar="NAME",
        action="append",
        default=[],
        dest="profiles",
        help="lay a profile of the spec over it (repeatable, in order)",
    )


def add_run(arguments: argparse.ArgumentParser) -> None:
    """Add the run whose artifacts are meant."""
    arguments.add_argument(
        "--run",
        metavar="RUN",
        help="use what this run made, with its profiles and settings: the beginning of its name, "
        "or last",
    )


def add_store(arguments: argparse.ArgumentParser) -> None:
    """Add the spec of the store, which need not be valid."""
    arguments.add_argument(
        "spec",
        metavar="SPEC",
        nargs="?",
        default="spec.yaml",
        help="the spec of the store (spec.yaml)",
    )


def whole_number(*, at_least: int) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number, for `argparse`."""

    def read(text: str) -> int:
        if not text.isdecimal() or int(text) < at_least:
            expected = bounded(TYPE_WORDS["integer"], ge=at_least)
            raise argparse.ArgumentTypeError(mismatch([expected], text))
        return int(text)

    return read


def find_store(spec: str) -> Store:
    """Return the store of a spec. The spec need not be valid, and the store need not exist.

    Raises:
        UsageError: There is no spec that tells where its store is.
    """
    path = Path(spec)
    if path.is_dir():
        hint = f"did you mean {path / 'spec.yaml'}?"
        raise UsageError(f"{spec} is a folder, not a spec", hint=hint)
    if not path.exists() and not os.environ.get("LLMPIPE_HOME"):
        hint = "name the spec of the store; if it was deleted, set LLMPIPE_HOME"
        raise UsageError(f"there is no spec {spec}", hint=hint)
    return Store(home_for(path))


def open_store(options: argparse.Namespace) -> Store:
    """Open the existing store of the spec that `add_store` names.

    Raises:
        UsageError: It does not exist.
    """
    store = find_store(options.spec)
    if not store.objects.is_dir():
        hint = "name the spec of the store"
        raise UsageError(f"there is no store in {store.home}", hint=hint)
    store.create()  # fields of later versions
    return store


def open_pipeline(
    options: argparse.Namespace,
    command: Sequence[str] = (),
    *,
    remember: bool = False,
    absent: bool = False,
) -> Pipeline:
    """Open the pipeline that the shared arguments name; see `llmpipe.api.loading.open_spec`.

    Args:
        options: The shared arguments, with those of `add_run` if the command has them.
        command: The words of the command, to tell how to call it for an earlier run.
        remember: See `llmpipe.api.loading.open_spec`.
        absent: See `llmpipe.api.loading.open_spec`.
    """
    from llmpipe.api.loading import open_spec
    from llmpipe.cli.hashing import HashProgress

    return open_spec(
        options.spec,
        profiles=options.profiles,
        settings=options.settings,
        run=getattr(options, "run", None),
        advice=CommandAdvice(options, command),
        remember=remember,
        absent=absent,
        notice=HashProgress(),
        warn=print_warning,
    )


class CommandAdvice:
    """Tells what to do on the command line; see `llmpipe.api.stored.Advice`."""

    def __init__(self, options: argparse.Namespace, command: Sequence[str]) -> None:
        self._spec = options.spec
        self._over = overlaid(options.profiles, options.settings)
        self._command = ["llmpipe", *command]

    def make(self, *stages: str) -> str:
        """Describe how to build the artifacts of some stages, or without a name of all."""
        only = [part for stage in stages for part in ("--only", stage)]
        return shlex.join(["llmpipe", "run", self._spec, *self._over, *only])

    def take(self, run: str) -> str:
        """Describe how to select the artifacts of an earlier run."""
        return shlex.join([*self._command, "--run", run])

    def runs(self) -> str:
        """Describe how to list the runs of the store."""
        return f"llmpipe runs --spec {shlex.quote(self._spec)} lists the runs"


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    ascii_only = "utf" not in (getattr(sys.stdout, "encoding", None) or "utf").lower()
    print(json_safe(json.dumps(value, indent=2, ensure_ascii=ascii_only)))


def print_warnings(warnings: Sequence[str]) -> None:
    """Print warnings on standard error before anything runs."""
    for warning in warnings[:MOST_PROBLEMS]:
        print_warning(warning)
    if len(warnings) > MOST_PROBLEMS:
        print(f"and {len(warnings) - MOST_PROBLEMS:,} more warnings", file=sys.stderr)


def print_warning(warning: str) -> None:
    """Print one warning on standard error."""
    print(f"warning: {warning}", file=sys.stderr)
