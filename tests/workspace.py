"""Specs of command stages, and the real command line to run them with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

CHAIN = """\
version: 1
name: chain
params: {word: one}
stages:
  first:
    kind: command
    run: "echo first >> trace; cat ${inputs.src} > ${outputs.o}; echo ${params.word} >> ${outputs.o}"
    inputs: {src: ./a.txt}
    outputs: {o: o.txt}
  second: {kind: command, run: "echo second >> trace; sort ${inputs.i} > ${outputs.o}", inputs: {i: first}, outputs: {o: o.txt}}
  third: {kind: command, run: "echo third >> trace; wc -l < ${inputs.i} > ${outputs.o}", inputs: {i: second}, outputs: {o: o.txt}}
"""

SLOW = """\
version: 1
name: slow
stages:
  first: {kind: command, run: "echo first >> trace; echo 1 > ${outputs.o}", outputs: {o: o.txt}}
  slow: {kind: command, run: "echo slow >> trace; echo $$ > pid; sleep 60; cat ${inputs.i} > ${outputs.o}", inputs: {i: first}, outputs: {o: o.txt}}
"""


class Workspace:
    """A folder with a spec; runs the command line in it as a user would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = folder / "spec.yaml"

    def write(self, text: str) -> None:
        """Write the spec."""
        self.spec.write_text(text, "utf-8")

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start the command line."""
        return subprocess.Popen(
            [sys.executable, "-m", "llmpipe", *arguments],
            cwd=self.folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        process = self.start(*arguments, **env)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def run(self, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
        """Run the spec and return the JSON result."""
        result = self.call("run", "spec.yaml", "--json", *arguments, **env)
        assert result.returncode == code, result.stderr
        data: dict[str, Any] = json.loads(result.stdout)
        return data

    def plan(self, *arguments: str) -> dict[str, Any]:
        """Plan the spec and return the stages of the JSON result."""
        result = self.call("plan", "spec.yaml", "--json", *arguments)
        assert result.returncode == 0, result.stderr
        data: dict[str, Any] = json.loads(result.stdout)["stages"]
        return data

    def trace(self) -> list[str]:
        """Return what the stages of `CHAIN` said when they really ran, and forget it."""
        path = self.folder / "trace"
        lines = path.read_text().split() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines
