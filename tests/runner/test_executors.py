"""The executor protocol, held to its word by an executor that runs stages on another machine.

That machine has a store and a name of its own, and gets requests and objects alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from workspace import Workspace

from llmpipe.errors import StageError
from llmpipe.graph.model import StageNode
from llmpipe.runner.executors.base import Event
from llmpipe.runner.options import RunOptions
from llmpipe.runner.plan import make_plan
from llmpipe.runner.project import Project
from llmpipe.runner.request import InputRequest, StageRequest
from llmpipe.runner.resources import Grant, Machine
from llmpipe.runner.run import run_project
from llmpipe.runner.shipping import objects_of, portable
from llmpipe.runner.statcache import StatCache
from llmpipe.runner.store import Store

pytestmark = pytest.mark.slow

WORK = """
import sys, msgspec
from pathlib import Path
from llmpipe.runner.executors.worker import work_on
from llmpipe.runner.request import StageRequest
from llmpipe.runner.store import Store
request = msgspec.json.decode(sys.stdin.buffer.read(), type=StageRequest)
Store(Path(request.home)).create()
work_on(request)
"""
SPEC = """\
version: 1
name: far
stages:
  one: {kind: command, run: "cat ${inputs.file} > ${outputs.o}", inputs: {file: ./a.txt}, outputs: {o: o.txt}}
  two:
    kind: command
    run: "cd ${inputs.folder} && find . -type f | LC_ALL=C sort | xargs cat - ${inputs.up} > ${outputs.o}"
    inputs: {folder: ./docs, up: one}
    outputs: {o: o.txt}
"""


class Elsewhere:
    """An executor on "another machine": one stage at a time, in a store of its own."""

    def __init__(self, home: Path, near: Store) -> None:
        self.near, self.far = near, Store(home)
        self.far.create()
        self.sent: list[StageRequest] = []
        self._waiting: list[tuple[int, StageRequest]] = []

    def __call__(
        self, run: str, kinds: Collection[str], coming: Collection[StageNode], wakeup: int
    ) -> Elsewhere:
        """Be opened for a run."""
        return self

    def capacity(self) -> Machine:
        """It does one thing at a time."""
        return Machine(1, 1 << 30)

    def submit(self, request: StageRequest, grant: Grant) -> int:
        """Send the objects that are missing there, and the request."""
        request = portable(request, self.near)
        _send(objects_of(request), self.near, self.far)
        self._waiting.append((len(self.sent), request))
        self.sent.append(request)
        return len(self.sent) - 1

    def events(self, timeout: float) -> Iterator[tuple[int, Event]]:
        """Run what waits, to its end; bring home what it made."""
        waiting, self._waiting = self._waiting, []
        for handle, request in waiting:
            data = msgspec.json.encode(msgspec.structs.replace(request, home=str(self.far.home)))
            said = subprocess.run(
                [sys.executable, "-c", WORK],
                input=data,
                stdout=subprocess.PIPE,
                check=True,
                env={**os.environ, "LLMPIPE_HOST": "elsewhere"},
            ).stdout
            record = self.far.record(request.key)
            if record is not None:
                _send({output.object for output in record.outputs.values()}, self.far, self.near)
                self.near.save(record)
            for line in said.splitlines():
                yield handle, json.loads(line)
            yield handle, {"event": "ended"}

    def stop(self, handles: Collection[Any], *, now: bool = False) -> None:
        """Nothing is running when anybody asks."""

    def close(self) -> None:
        """There is nothing to release."""


def _send(objects: Collection[str], source: Store, target: Store) -> None:
    for name in objects:
        if target.lacks(name):
            shutil.copytree(source.objects / name, target.tmp / name)
            target.adopt(target.tmp / name, name)


@pytest.fixture
def project(workspace: Workspace) -> Project:
    """A spec that reads a file and a folder of the user's."""
    docs = workspace.folder / "docs"
    (docs / "sub").mkdir(parents=True)
    (docs / "a.md").write_text("a\n")
    (docs / "sub" / "b.md").write_text("b\n")
    workspace.write(SPEC)
    project = Project.open(workspace.spec)
    project.store.create()
    return project


def test_stages_run_elsewhere_as_here(
    project: Project, tmp_path: Path, workspace: Workspace
) -> None:
    """The same artifacts, though no path of an input was sent; each object travels once."""
    far = Elsewhere(tmp_path / "far", project.store)
    outcome = run_project(project, make_plan(project), RunOptions(), [], far)
    assert {name: stage.status for name, stage in outcome.stages.items()} == {
        "one": "done",
        "two": "done",
    }, [stage.error for stage in outcome.stages.values()]
    inputs = [item for request in far.sent for item in request.all_inputs()]
    assert [item.path for item in inputs] == [None, None, None]
    assert str(workspace.folder) not in msgspec.json.encode(inputs).decode()
    made = {
        name: dict(stage.record.outputs) for name, stage in outcome.stages.items() if stage.record
    }
    here = workspace.run(LLMPIPE_HOME=str(tmp_path / "here"))["stages"]
    for name, outputs in made.items():
        local = Path(here[name]["outputs"]["o"])
        assert project.store.output_path(outputs["o"]).read_bytes() == local.read_bytes()
    assert {stage["status"] for stage in workspace.plan().values()} == {"cached"}


def test_a_file_that_changed_since_the_plan_is_not_sent(
    project: Project, workspace: Workspace
) -> None:
    """What is sent is what the key says, or nothing."""
    plan = make_plan(project)["one"]
    assert plan.key is not None
    node = project.graph.nodes["one"]
    request = project.request(node, plan.key, plan.key_inputs, {}, log=workspace.folder / "log")
    (workspace.folder / "a.txt").write_text("other\n")
    with pytest.raises(StageError, match=r"^\./a\.txt changed after the run began"):
        portable(request, project.store)
    assert list(project.store.objects.iterdir()) == list(project.store.tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("inner", "pattern", "names"),
    [
        ("a.txt", None, {"a.txt"}),
        ("m-00001-of-00002.gguf", None, {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}),
        ("sub", None, {"x.md", "y.txt"}),
        (".", "**/*.md", {"z.md", "sub/x.md"}),
    ],
)
def test_what_travels_has_the_digest_of_what_stays(
    tmp_path: Path, inner: str, pattern: str | None, names: set[str]
) -> None:
    """A file, all parts of a split GGUF, a folder, and what matches a pattern in one."""
    folder, store = tmp_path / "in", Store(tmp_path / "home")
    (folder / "sub").mkdir(parents=True)
    for name in ("a.txt", "z.md", "sub/x.md", "sub/y.txt"):
        (folder / name).write_text(name)
    for number in (1, 2):
        (folder / f"m-0000{number}-of-00002.gguf").write_text(str(number))
    store.create()
    cache = StatCache(store.statcache)
    digest = cache.digest(folder / inner, pattern)
    item = InputRequest("file", digest, "i", path=str(folder / inner), pattern=pattern)
    request = StageRequest(
        "s", "command", "0", {}, {}, {"i": item}, {}, str(store.home), "", "", []
    )
    sent = portable(request, store).inputs["i"]
    assert sent.object is not None
    assert {entry.path for entry in store.manifest(sent.object)} == names
    assert cache.digest(sent.artifact(store.objects).path, sent.pattern) == digest
