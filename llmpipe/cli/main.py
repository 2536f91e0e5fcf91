"""The entry point: import only the requested command, turn errors into messages and exit codes."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from llmpipe import __version__

COMMANDS = {
    "init": "write a spec for your data: answers from documents, or fine-tuning",
    "run": "bring every stage of a spec up to date",
    "plan": "show what would run, and why",
    "estimate": "show what stages take before they run, and whether it fits",
    "graph": "draw the stages of a spec",
    "doctor": "show what a spec needs on this machine, and how to install it",
    "validate": "check a spec and the Axolotl settings in it",
    "check": "check an Axolotl YAML file",
    "compile": "write what a training stage would run, to run it without llmpipe",
    "show": "print the rows of a training stage with the tokens that train",
    "trace": "follow a row from its seed to the models that train on it",
    "serve": "serve a model, or answers from documents, until Ctrl-C",
    "ask": "answer a question from the documents of a rag stage",
    "get": "copy an artifact out of the store",
    "runs": "list, show and compare earlier runs",
    "report": "write a run as one HTML page",
    "push": "push up-to-date artifacts to the remote store",
    "pull": "pull artifacts from the remote store",
    "publish": "publish models on the Hugging Face hub, with a model card",
    "gc": "free what no lock file and no recent run needs",
    "cache": "verify the store, byte by byte",
    "schema": "write the JSON Schemas of the spec language",
    "completion": "print a script that completes commands in bash, zsh or fish",
    "tools": "install and list external tools",
}

SERVES = "serve"
"""The command that only a signal ends, which is never a failure."""

USAGE = """usage: llmpipe COMMAND ...

One YAML file from raw data to a fine-tuned language model that is proven to be the one served.

commands:
{commands}

  llmpipe COMMAND --help shows the options; llmpipe --version prints the version.

exit codes: 0 done, 1 a stage failed, 2 the spec or the command is wrong, 3 stale, 130 interrupted
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; ``argv`` is by default that of the process."""
    if argv is None:
        _print_anything()
        if sys.argv[1:2] == [SERVES]:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, leave)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        rows = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
        print(USAGE.format(commands=rows), end="")
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version", "version"):
        print(f"llmpipe {__version__}")
        return 0
    from llmpipe.terminal import guarding

    with guarding():
        return _command(arguments[0], arguments[1:])


def _command(name: str, arguments: list[str]) -> int:
    from llmpipe.errors import LlmpipeError, UsageError, did_you_mean, foreign_text

    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f"commands: {', '.join(COMMANDS)}"
        print(f"llmpipe: there is no command {name!r}\n   {hint}", file=sys.stderr)
        return 2
    gc.set_threshold(100_000)  # a graph lives as long as the process: collect garbage rarely
    try:
        code = int(importlib.import_module(f"llmpipe.cli.{name}").main(arguments))
        print(end="", flush=True)  # a write error can still be reported here
        return code
    except LlmpipeError as error:
        _complain(error.render())
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    except UnicodeEncodeError as error:
        told = foreign_text(error)
        if told is None:
            raise
        _complain(UsageError(f"llmpipe {name}: {told[0]}", hint=told[1]).render())
        return UsageError.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"llmpipe {name}: {where}{error.strerror or error}")
        return 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            with unheard(stream, OSError):
                pass  # otherwise Python would print a traceback at exit


@contextlib.contextmanager
def unheard(stream: TextIO, error: type[OSError] = BrokenPipeError) -> Iterator[None]:
    """Print to a stream; ignore a closed stream and similar errors."""
    try:
        yield
        print(end="", file=stream, flush=True)
    except error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _complain(text: str) -> None:
    with unheard(sys.stderr, OSError):
        print(text, file=sys.stderr)


def leave(number: int, frame: object) -> None:
    """Exit with success, as a server is meant to end.

    An exception might be lost if it were raised in the middle of an import.
    """
    os._exit(0)


def _print_anything() -> None:
    """Print characters that the terminal's encoding lacks by their numbers."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
