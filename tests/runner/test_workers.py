"""The fork servers of a run: what is imported once, and what happens until it is, and without."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llmpipe.errors import StoreError
from llmpipe.graph.model import StageNode
from llmpipe.registry import stage_class
from llmpipe.runner import resources
from llmpipe.runner.executors.workers import Workers
from llmpipe.runner.process import RUN_VARIABLE
from llmpipe.runner.request import StageRequest

pytestmark = pytest.mark.slow

PATIENCE = 30.0
SLOW = "import os, pathlib, time\ntime.sleep({})\npathlib.Path(__file__ + '.pid').write_text(str(os.getpid()))"


def node(kind: str, *imports: str) -> StageNode:
    """Make as much of a stage as is looked at."""
    return cast(StageNode, SimpleNamespace(kind=kind, stage=SimpleNamespace(imports=imports)))


@pytest.fixture
def heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that says which process has imported it; its name is ``heavy``."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    module = tmp_path / "heavy.py"
    module.write_text(SLOW.format(0.5))
    return module


def opened(folder: Path, *coming: StageNode) -> Iterator[Workers]:
    """Open the workers of a run that has the name of a folder."""
    workers = Workers(str(folder), ["command"], coming)
    yield workers
    workers.close()


@pytest.fixture
def workers(tmp_path: Path, heavy: Path) -> Iterator[Workers]:
    """Workers for many stages that import the same, and something that is not installed."""
    yield from opened(tmp_path, *[node("command", "no_such_module", "heavy")] * 99)


def servers(run: Path) -> set[int]:
    """Find the processes that carry a run's name, by what they were started with."""
    mark = f"{RUN_VARIABLE}={run}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in entry.read_bytes().split(b"\0"):
                found.add(int(entry.parent.name))
        except OSError:
            continue  # it has ended
    return found


def start_one(workers: Workers, folder: Path) -> int:
    """Start a worker and let it end; return the pid of the server that forked it."""
    fields: dict[str, Any] = {
        "key_inputs": {},
        "config": {},
        "inputs": {},
        "outputs": {},
        "required": [],
    }
    places = {"home": str(folder), "spec_dir": str(folder), "log": str(folder / "log")}
    request = StageRequest(
        stage="s", kind="command", key="0" * 64, threads=1, environment={}, **fields, **places
    )
    worker = workers.start(request)
    stat = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    while worker.read() is not None:
        pass
    workers.end(worker)
    assert int(stat[2]) == worker.pid, "a signal to its group would not reach it yet"
    return int(stat[1])


def importer(heavy: Path) -> int | None:
    """Return the pid of the process that has imported the module."""
    mark = Path(f"{heavy}.pid")
    return int(mark.read_text()) if mark.exists() and mark.read_text() else None


def test_stages_come_from_the_server_that_has_imported(
    workers: Workers, heavy: Path, tmp_path: Path
) -> None:
    """No stage waits for it, or needs it when it is killed."""
    plain = start_one(workers, tmp_path)
    assert importer(heavy) is None
    begun = time.monotonic()
    while (prepared := start_one(workers, tmp_path)) == plain:
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.05)
    assert prepared == importer(heavy)
    os.kill(prepared, signal.SIGKILL)
    assert start_one(workers, tmp_path) == plain
    os.kill(plain, signal.SIGKILL)
    assert start_one(workers, tmp_path) not in (plain, prepared)


def test_it_ends_when_the_last_such_stage_has_started(heavy: Path, tmp_path: Path) -> None:
    """Its memory is of no more use, however long the run goes on."""
    heavy.write_text(SLOW.format(0))
    for workers in opened(tmp_path, *[node("command", "heavy")] * 2, node("other")):
        start_one(workers, tmp_path)
        assert len(servers(tmp_path)) == 2
        plain = start_one(workers, tmp_path)
        assert servers(tmp_path) <= {plain, start_one(workers, tmp_path)}
    assert not servers(tmp_path)


@pytest.mark.parametrize("coming", [[], [node("command", "heavy")], [node("command")] * 3])
def test_nothing_is_imported_for_less_than_two(
    heavy: Path, tmp_path: Path, coming: list[StageNode]
) -> None:
    """Kinds of other packages need not say that they import anything."""
    theirs = cast(StageNode, SimpleNamespace(kind="theirs", stage=object))
    for workers in opened(tmp_path, *coming, theirs):
        start_one(workers, tmp_path)
        assert len(servers(tmp_path)) == 1


def test_what_fails_halfway_is_handed_on_to_nobody(
    workers: Workers, heavy: Path, tmp_path: Path
) -> None:
    """The stages import for themselves, and say what is wrong."""
    heavy.write_text("raise OSError('a library cannot be loaded')")
    plain = start_one(workers, tmp_path)
    time.sleep(2)
    assert start_one(workers, tmp_path) == plain


def test_a_system_that_gives_no_process_is_no_end(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second server is a gain and no need; without the first one nothing can run."""
    start, refuse = subprocess.Popen, "heavy"

    def refused(command: list[str], **options: Any) -> Any:
        if any(refuse in word for word in command):
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return start(command, **options)

    monkeypatch.setattr(subprocess, "Popen", refused)
    assert servers(tmp_path) <= {start_one(workers, tmp_path)}
    workers.close()
    refuse = "forkserver"
    with pytest.raises(StoreError, match="no worker process can be started"):
        start_one(workers, tmp_path)


def test_no_server_is_left(heavy: Path, tmp_path: Path) -> None:
    """Not one that is still importing either."""
    heavy.write_text(SLOW.format(60))
    begun = time.monotonic()
    for workers in opened(tmp_path, *[node("command", "heavy")] * 3):
        start_one(workers, tmp_path)
        assert len(servers(tmp_path)) == 2
    assert time.monotonic() - begun < PATIENCE
    assert not servers(tmp_path)


def test_devices_of_all_makes_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the environment hides them, for then libraries may look at them all the same."""
    monkeypatch.setattr(resources, "GPU_FOLDER", tmp_path / "none")
    monkeypatch.setattr(resources, "DEVICE_FILES", (f"{tmp_path}/renderD*".lstrip("/"),))
    assert not resources.device_here()
    (tmp_path / "renderD128").touch()
    assert resources.device_here()


def test_kinds_of_ours_name_packages() -> None:
    """Those that compute in their own process."""
    assert "peft" in stage_class("merge").imports
    for kind in ("evaluate", "export", "import_gguf"):
        assert {"torch", "transformers"} <= set(stage_class(kind).imports)
    assert stage_class("train").imports == ()
