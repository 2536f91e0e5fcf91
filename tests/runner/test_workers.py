"""The fork servers of a run: what is imported once, and what happens until it is, and without."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmpipe.graph.model import StageNode
from llmpipe.registry import stage_class
from llmpipe.runner.request import StageRequest
from llmpipe.runner.workers import Workers, shared_imports

MODULE = "audioop"
"""A module of Python's own that nothing here imports."""
PATIENCE = 30.0


def node(kind: str) -> StageNode:
    """Give as much of a stage as is looked at."""
    return cast(StageNode, SimpleNamespace(kind=kind, stage=stage_class(kind)))


@pytest.fixture
def workers() -> Iterator[Workers]:
    """Workers of a run that has something to import once, and something that is not installed."""
    opened = Workers("run", ["command"], {"command": ("no_such_module", MODULE)})
    yield opened
    opened.close()


def parent_of_a_worker(workers: Workers, folder: Path) -> tuple[int, bool]:
    """Start a worker; give its fork server's pid, and whether that one has imported the module."""
    fields: dict[str, Any] = {"made_of": {}, "config": {}, "inputs": {}, "outputs": {}}
    places = {"home": str(folder), "spec_dir": str(folder), "log": str(folder / "log")}
    request = StageRequest(
        stage="s", kind="command", key="0" * 64, threads=1, environment={}, **fields, **places
    )
    worker = workers.start(request)
    stat = Path(f"/proc/{worker.pid}/stat").read_text()
    parent = int(stat.rpartition(")")[2].split()[1])
    imported = MODULE in Path(f"/proc/{parent}/maps").read_text()
    while worker.read() is not None:
        pass
    workers.end(worker)
    return parent, imported


def test_what_several_stages_import_is_shared() -> None:
    """By kind; not where a single stage would import it, or none."""
    assert shared_imports([node("command"), node("format"), node("merge")]) == {}
    shared = shared_imports([node("merge"), node("command"), node("evaluate")])
    assert shared.keys() == {"merge", "evaluate"}
    assert "peft" in shared["merge"]
    assert "torch" in shared["evaluate"]
    of_another_package = cast(StageNode, SimpleNamespace(kind="theirs", stage=object))
    assert shared_imports([node("merge"), of_another_package, of_another_package]) == {}


def test_stages_come_from_the_server_that_has_imported(workers: Workers, tmp_path: Path) -> None:
    """Nobody waits for it, and nobody misses it when it is killed."""
    plain, imported = parent_of_a_worker(workers, tmp_path)
    assert not imported
    begun = time.monotonic()
    while not imported:
        assert time.monotonic() - begun < PATIENCE
        prepared, imported = parent_of_a_worker(workers, tmp_path)
    assert prepared != plain
    os.kill(prepared, signal.SIGKILL)
    assert parent_of_a_worker(workers, tmp_path) == (plain, False)
    os.kill(plain, signal.SIGKILL)
    after, imported = parent_of_a_worker(workers, tmp_path)
    assert after not in (plain, prepared)
    assert not imported


def test_no_server_is_left(tmp_path: Path) -> None:
    """Not one that is still importing either."""
    workers = Workers("run", ["command"], {"command": ("torch",)})
    plain, _ = parent_of_a_worker(workers, tmp_path)
    begun = time.monotonic()
    workers.close()
    assert time.monotonic() - begun < 1
    assert not Path(f"/proc/{plain}").exists()
