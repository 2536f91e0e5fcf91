"""The figures as Markdown, each table as soon as it is measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.engine.bench import Bench, Row
from benchmarks.engine.measure import Cost


def print_report(bench: Bench, files: int) -> None:
    """Measure everything and print it."""
    print(_conditions(bench))
    _say(f"\n### {bench.stages:,} stages\n\n{_head(bench)}")
    rows: dict[str, Row] = {}
    for case, row in bench.graph_rows():
        rows[case] = row
        _say(_row(bench, case, row))
    _say(f"\n### Start\n\n{_head(bench)}")
    for case, row in bench.start_rows():
        _say(_row(bench, f"`{case}`", row))
    _say("\n### llmpipe alone\n\n| what | CPU | wall |\n|---|---|---|")
    _print_alone(bench, files, next(iter(rows.values())))


def _print_alone(bench: Bench, files: int, cold: Row) -> None:
    own, plain = cold[bench.tools[0].name], bench.plain_loop()
    _say(f"| the same {bench.stages:,} commands by `sh -c` in a loop | {_cells(plain)} |")
    if own is not None:
        each = (own.cpu - plain.cpu) / bench.stages * 1000
        _say(f"| the engine's own, per stage that ran | {each:.1f} ms | |")
    first, unchanged = bench.many_files(files)
    _say(f"| {files:,} small files read for the first time, and one stage run | {_cells(first)} |")
    _say(f"| {files:,} small files, unchanged: `plan` | {_cells(unchanged)} |")
    _say(f"| bare Python: `python -c pass` | {_cells(bench.python('-c', 'pass'))} |")
    _say(f"| the same without `site` | {_cells(bench.python('-I', '-S', '-c', 'pass'))} |")
    imports = bench.python("-c", "import llmpipe.cli.run")
    _say(f"| `import llmpipe.cli.run` | {_cells(imports)} |")


def _conditions(bench: Bench) -> str:
    """Say when, where and with what the figures were taken."""
    versions = ", ".join(f"{tool.name} {tool.version()}" for tool in bench.tools)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {versions}; Python {platform.python_version()}; "
        f"{len(os.sched_getaffinity(0))} cores, {_processor()}; short commands: "
        f"median of {bench.repeat}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _head(bench: Bench) -> str:
    own, *peers = (tool.name for tool in bench.tools)
    cells = ["CPU (wall)", own, *peers, *(f"{peer} ÷ {own}" for peer in peers)]
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def _row(bench: Bench, case: str, row: Row) -> str:
    own, *peers = (row[tool.name] for tool in bench.tools)
    cells = [case, *map(_cell, (own, *peers)), *(_ratio(peer, own) for peer in peers)]
    return f"| {' | '.join(cells)} |"


def _cell(cost: Cost | None) -> str:
    return "–" if cost is None else f"{_seconds(cost.cpu)} ({_seconds(cost.wall)})"


def _cells(cost: Cost) -> str:
    return f"{_seconds(cost.cpu)} | {_seconds(cost.wall)}"


def _ratio(peer: Cost | None, own: Cost | None) -> str:
    return "–" if peer is None or own is None else f"{peer.cpu / own.cpu:.1f}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _say(text: str) -> None:
    print(text, flush=True)
