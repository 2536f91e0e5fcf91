"""What each tool is asked to do, and the settings under which it is asked.

All use two jobs where they can; DVC runs one stage at a time. None reports to anybody, looks for
a newer version of itself, or reads its user's settings. Variables that change how Python starts
are taken out of the environment: with ``PYTHONDONTWRITEBYTECODE`` every process
would compile a checkout again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.engine import chains

Command = tuple[str | Path, ...]

JOBS = "2"


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool: how it is called, and how the graph is written for it."""

    name: str
    program: Path
    write: Callable[[Path, int], None]
    run: Command
    """Brings everything up to date."""
    status: Command
    """Says what would run, and runs nothing."""
    prepare: tuple[Command, ...] = ()
    """What is to be called once in a new workspace."""
    copy_out: Command | None = None
    """Puts the file of a stage beside the others, where that is not its place; the stage's name
    and the file's follow."""

    def version(self) -> str:
        """Ask the tool for its version."""
        text = subprocess.check_output([self.program, "--version"], text=True)
        return text.split()[-1]

    def read(self, folder: Path, stage: str, environment: Mapping[str, str]) -> str:
        """Return the text of the file that a stage wrote."""
        path = folder / f"{stage}.txt"
        if self.copy_out is not None:
            path.unlink(missing_ok=True)
            command = [*self.copy_out, stage, path]
            subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        return path.read_text()


def llmpipe() -> Tool:
    """Return the llmpipe of the Python that runs the benchmark."""
    program = Path(sys.executable).with_name("llmpipe")
    return Tool(
        "llmpipe",
        program,
        chains.write_llmpipe,
        run=(program, "run", "--quiet", "--jobs", JOBS, "spec.yaml"),
        status=(program, "plan", "spec.yaml"),
        copy_out=(program, "get", "spec.yaml"),
    )


def snakemake(peers: Path) -> Tool:
    """Return the Snakemake of a virtual environment."""
    program = peers / "bin" / "snakemake"
    return Tool(
        "Snakemake",
        program,
        chains.write_snakemake,
        run=(program, "--quiet", "all", "--cores", JOBS),
        status=(program, "--quiet", "all", "--cores", JOBS, "--dry-run"),
    )


def dvc(peers: Path) -> Tool:
    """Return the DVC of a virtual environment; without Git, which it would also look at."""
    program = peers / "bin" / "dvc"
    return Tool(
        "DVC",
        program,
        chains.write_dvc,
        run=(program, "repro", "--quiet"),
        status=(program, "status", "--quiet"),
        prepare=(
            (program, "init", "--no-scm", "--quiet"),
            (program, "config", "core.check_update", "false"),
        ),
    )


def environment(workspace: Path) -> dict[str, str]:
    """Return the variables that every measured command gets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "LLMPIPE", "DVC", "SNAKEMAKE"))
    }
    home = str(workspace / "home")
    return {
        **kept,
        "HOME": home,
        "XDG_CACHE_HOME": home,
        "XDG_CONFIG_HOME": home,
        "DVC_NO_ANALYTICS": "1",
    }
