"""The measurements: what is asked of each tool, in which order, how often."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.engine import chains
from benchmarks.engine.measure import CommandError, Cost, measure, median
from benchmarks.engine.tools import Command, Tool, environment

PLAIN_LOOP = Path(__file__).with_name("plain_loop.py")

SETTLING = 0.1
"""Seconds to let pass after files are written: all three distrust files that are too new."""

Ask = Callable[[Tool, int], Command]
"""Gives what to run for a tool; the number counts the repetitions from 0."""

Row = dict[str, Cost | None]
"""What one case cost each tool; None where it was stopped or could not begin."""


class Bench:
    """Measures tools on the same graph, in workspaces side by side below ``folder``."""

    def __init__(
        self, folder: Path, tools: Sequence[Tool], stages: int, repeat: int, limit: float
    ) -> None:
        self.folder, self.tools, self.stages = folder, tools, stages
        self.repeat, self.limit = repeat, limit
        self.environment = environment(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "home").mkdir()
        self._finished: list[Tool] = []

    def graph_rows(self) -> Iterator[tuple[str, Row]]:
        """Measure the graph: from nothing, with nothing to do, asked only, with one change."""
        yield "cold: every stage runs", {tool.name: self._cold(tool) for tool in self.tools}
        yield "no-op: nothing has changed", self._each(lambda tool, i: tool.run)
        yield "status: what would run", self._each(lambda tool, i: tool.status)
        yield "one leaf changed", self._each(self._change_leaf)
        for tool in self._finished:
            self._verify(tool, f"leaf {self.repeat - 1}")

    def start_rows(self) -> Iterator[tuple[str, Row]]:
        """Measure how long it takes to say hardly anything."""
        for option in ("--version", "--help"):
            yield option, self._each(_asking(option), self.tools)

    def plain_loop(self) -> Cost:
        """Run the commands of the graph's stages without any engine."""
        folder = self.folder / "plain"
        chains.write_commands(folder, self.stages)
        return self._must((sys.executable, PLAIN_LOOP), folder)

    def python(self, *arguments: str) -> Cost:
        """Start the Python that llmpipe runs on."""
        command = (sys.executable, "-P", *arguments)
        return median(self._must(command, self.folder) for _ in range(self.repeat))

    def many_files(self, count: int) -> tuple[Cost, Cost]:
        """Plan a stage that reads a folder of many files: the first time, and unchanged."""
        tool, folder = self.tools[0], self.folder / "many-files"
        chains.write_many_files(folder, count)
        time.sleep(SETTLING)
        first = self._must(tool.run, folder)
        return first, median(self._must(tool.status, folder) for _ in range(self.repeat))

    def _cold(self, tool: Tool) -> Cost | None:
        folder = self._place(tool)
        tool.write(folder, self.stages)
        for command in tool.prepare:
            subprocess.run(command, cwd=folder, env=self.environment, check=True)
        time.sleep(SETTLING)
        cost = self._measure(tool.run, folder)
        if cost is not None:
            self._verify(tool, "leaf")
            self._finished.append(tool)
        return cost

    def _each(self, ask: Ask, tools: Sequence[Tool] | None = None) -> Row:
        """Ask every tool in turn, several times over, so that all meet the machine's moods."""
        asked = self._finished if tools is None else tools
        costs: dict[str, list[Cost | None]] = {tool.name: [] for tool in asked}
        for i in range(self.repeat):
            for tool in asked:
                folder = self._place(tool)
                costs[tool.name].append(self._measure(ask(tool, i), folder))
        row: Row = dict.fromkeys((tool.name for tool in self.tools), None)
        for name, found in costs.items():
            complete = [cost for cost in found if cost is not None]
            row[name] = median(complete) if len(complete) == len(found) else None
        return row

    def _change_leaf(self, tool: Tool, i: int) -> Command:
        chains.write_leaf(self._place(tool), f"leaf {i}")
        time.sleep(SETTLING)
        return tool.run

    def _verify(self, tool: Tool, leaf: str) -> None:
        """See that a tool has done the work: figures of what was not done are worth nothing."""
        stage = chains.leaf_name(self.stages)
        found = tool.read(self._place(tool), stage, self.environment)
        if found != chains.leaf_text(self.stages, leaf):
            raise CommandError(f"{tool.name}: {stage} is not what it must be:\n{found}")

    def _place(self, tool: Tool) -> Path:
        return self.folder / tool.name

    def _measure(self, command: Command, folder: Path) -> Cost | None:
        log = self.folder / "output.txt"
        return measure(command, folder, self.environment, limit=self.limit, log=log)

    def _must(self, command: Command, folder: Path) -> Cost:
        cost = self._measure(command, folder)
        if cost is None:
            raise CommandError(f"{' '.join(map(str, command))} took longer than {self.limit:g} s")
        return cost


def _asking(option: str) -> Ask:
    return lambda tool, i: (tool.program, option)
