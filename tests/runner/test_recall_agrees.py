"""A memory never says other than the plan: both are asked after every edit of a random sequence."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llmpipe.errors import LlmpipeError
from llmpipe.runner.options import RunOptions
from llmpipe.runner.outcome import StageOutcome, content
from llmpipe.runner.plan import make_plan
from llmpipe.runner.project import Project
from llmpipe.runner.recall import recall, remember
from llmpipe.runner.run import run_project
from llmpipe.runner.store import Store, home_for

pytestmark = pytest.mark.slow

SPEC = """\
version: 1
name: agree
extends: ./base.yaml
profiles: {loud: {params: {word: LOUD}}}
stages:
  one: {kind: command, run: "cat ${inputs.i} > ${outputs.o}; echo ${params.word} ${env:WORD} >> ${outputs.o}", inputs: {i: ./link/a.txt}, outputs: {o: o.txt}}
  two: {kind: command, run: "cat ${inputs.up} ${inputs.docs}/* > ${outputs.o}", inputs: {up: one, docs: ./docs}, outputs: {o: o.txt}}
"""
BASE = "version: 1\nparams: {word: one}\n"

TEXTS = st.sampled_from(["", "a\n", "b\n", "longer\n"])


class World:
    """A folder with a spec, what it reads and what it made; edits are methods."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.spec = folder, folder / "spec.yaml"
        for name in ("docs", "real", "other"):
            (folder / name).mkdir()
        self.reset()

    def reset(self) -> None:
        """Put everything that is read back to how it began; the store stays."""
        os.environ["WORD"] = "w"
        self.spec.write_text(SPEC)
        (self.folder / "base.yaml").write_text(BASE)
        for name in ("real/a.txt", "other/a.txt", "docs/x.md"):
            (self.folder / name).write_text(f"{name}\n")
        for path in (self.folder / "docs").iterdir():
            if path.name != "x.md":
                path.unlink()
        self.turn("real")

    def write(self, name: str, text: str) -> None:
        """Write an input."""
        (self.folder / name).write_text(text)

    def write_unseen(self, text: str) -> None:
        """Write an input without changing its size and time."""
        path = self.folder / "real" / "a.txt"
        if not path.exists():
            return
        seen = path.stat()
        path.write_text((text * 20)[: seen.st_size])
        os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))

    def remove(self, name: str) -> None:
        """Remove an input."""
        (self.folder / name).unlink(missing_ok=True)

    def turn(self, target: str) -> None:
        """Let the link that the spec names lead elsewhere."""
        link = self.folder / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(target)

    def edit(self, name: str, old: str, new: str) -> None:
        """Change the spec, or the file that it extends."""
        path = self.folder / name
        path.write_text(path.read_text().replace(old, new))

    def set(self, word: str | None) -> None:
        """Change the environment."""
        os.environ.pop("WORD", None)
        if word is not None:
            os.environ["WORD"] = word

    def damage(self, pattern: str, number: int, how: Callable[[Path], object]) -> None:
        """Do something to one of the newest files of the store."""
        paths = self.folder.glob(f".llmpipe/{pattern}")
        found = sorted(paths, key=lambda path: path.lstat().st_ctime_ns, reverse=True)
        if found:
            how(found[number % len(found)])

    def run(self, profiles: list[str]) -> None:
        """Bring everything up to date, and leave a memory."""
        try:
            project = Project.open(self.spec, profiles=profiles)
            outcome = run_project(project, make_plan(project), RunOptions())
        except LlmpipeError:
            return
        records = {o.id: o.record for o in outcome.stages.values() if o.record is not None}
        project.lock.write(records, {})
        remember(project, outcome)

    def check(self, profiles: list[str]) -> bool:
        """Ask both; return whether anything was recalled."""
        recalled = recall(Store(home_for(self.spec)), self.spec, profiles)
        try:
            told = self._told(profiles)
        except LlmpipeError:
            told = None
        if recalled is not None:
            assert recalled == told
        return recalled is not None

    def _told(self, profiles: list[str]) -> Any:
        """Return what a run would record that takes the long way and finds nothing to do."""
        project = Project.open(self.spec, profiles=profiles)
        plans = make_plan(project)
        if any(plan.status == "run" for plan in plans.values()):
            return None
        ended = [
            StageOutcome(p.id, p.kind, "cached", p.key, record=p.record) for p in plans.values()
        ]
        return msgspec.json.decode(msgspec.json.encode(content(project.graph, (), ended)))


def _chmod_write(path: Path, text: str) -> None:
    path.chmod(0o644)
    path.write_text(text)


def _remove(path: Path) -> None:
    if path.is_dir():
        os.chmod(path, 0o755)  # noqa: PTH101
        shutil.rmtree(path)
    else:
        path.unlink()


STORE = (
    "store/keys/*.json",
    "store/objects/*/data/*",
    "store/objects/*/manifest.json",
    "store/objects/*",
    "latest/*/*",
    "latest/*",
    "projects/*",
    "statcache-*.sqlite",  # not its -shm: SQLite maps it, and cutting what is mapped is fatal
)
HARM: list[Callable[[Path], object]] = [
    _remove,
    lambda path: None if path.is_dir() else _chmod_write(path, "{}"),
    lambda path: None if path.is_dir() else _chmod_write(path, path.read_bytes().decode("latin-1")),
    os.utime,
]
EDITS: st.SearchStrategy[Callable[[World], object]] = st.one_of(
    st.tuples(st.sampled_from(["real/a.txt", "other/a.txt", "docs/x.md", "docs/y.md"]), TEXTS).map(lambda t: lambda w: w.write(*t)),
    TEXTS.map(lambda text: lambda w: w.write_unseen(text)),
    st.sampled_from(["docs/x.md", "docs/y.md", "real/a.txt"]).map(lambda name: lambda w: w.remove(name)),
    st.sampled_from(["real", "other", "nowhere"]).map(lambda target: lambda w: w.turn(target)),
    st.sampled_from(
        [
            ("spec.yaml", "cat ${inputs.up}", "tac ${inputs.up}"), ("spec.yaml", "two:", "zwei:"),
            ("spec.yaml", "LOUD", "LOUDER"), ("spec.yaml", "version: 1\n", "# a comment\nversion: 1\n"),
            ("base.yaml", "one", "two"), ("base.yaml", "word", "other"), ("spec.yaml", "stages", "stagges"),
        ]
    ).map(lambda t: lambda w: w.edit(*t)),
    st.sampled_from([None, "w", "v"]).map(lambda word: lambda w: w.set(word)),
    st.tuples(st.sampled_from(STORE), st.integers(0, 3), st.sampled_from(HARM)).map(lambda t: lambda w: w.damage(*t)),
    st.tuples(st.sampled_from(STORE), st.integers(0, 3), st.sampled_from(HARM)).map(lambda t: lambda w: w.damage(*t)),
    st.just(lambda w: w.remove("agree.lock.yaml")),
    st.just(lambda w: w.reset()),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One folder for all sequences: each begins where the last one left the store."""
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the edits do to the environment is undone."""
    monkeypatch.setenv("WORD", "w")


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    st.lists(st.tuples(EDITS, st.sampled_from([True, True, False])), max_size=8),
    st.sampled_from([[], ["loud"]]),
)
def test_a_memory_tells_what_the_plan_would(
    world: World, edits: list[tuple[Callable[[World], object], bool]], profiles: list[str]
) -> None:
    """After a run it tells the same; after an edit it tells the same, or nothing."""
    world.reset()
    world.run(profiles)
    assert world.check(profiles)
    for edit, again in edits:
        edit(world)
        recalled = world.check(profiles)
        world.check([] if profiles else ["loud"])
        if again and not recalled:  # else the next edits would find no memory to mislead
            world.run(profiles)
