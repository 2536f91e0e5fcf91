"""The command line in the process of the tests, for tests that call it often.

Nothing is imported again, and one process that has imported Axolotl answers for all of them. What
a run starts, Ctrl-C and the exit of the process are shown by tests that start the real program.
"""

from __future__ import annotations

import contextlib
import io
import subprocess
from pathlib import Path

from llmpipe.cli.main import main


def llmpipe(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Call the command line in a folder; return its exit code and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
