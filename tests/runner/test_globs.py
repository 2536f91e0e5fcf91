"""A stage over a pattern runs again when what matches changes, and only then."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace

from llmpipe.errors import StageError
from llmpipe.runner.executors.worker import _check_inputs
from llmpipe.runner.plan import make_plan
from llmpipe.runner.project import Project
from llmpipe.runner.statcache import StatCache, hash_file, manifest_digest
from llmpipe.runner.store import Store

pytestmark = pytest.mark.slow

SPEC = """\
version: 1
name: manuals
stages:
  docs: {kind: ingest, paths: ["./docs/**/*.md"]}
"""


@pytest.fixture
def manuals(tmp_path: Path) -> Workspace:
    """A spec over a pattern, run once."""
    space = Workspace(tmp_path)
    space.write(SPEC)
    (tmp_path / "docs" / "sub").mkdir(parents=True)
    (tmp_path / "docs" / "a.md").write_text("# A\n\nfirst\n")
    (tmp_path / "docs" / "sub" / "b.md").write_text("# B\n\nsecond\n")
    (tmp_path / "docs" / "b.txt").write_text("not asked for\n")
    space.run()
    return space


def documents(result: dict[str, Any]) -> list[str]:
    """The ids of what came out."""
    path = Path(result["stages"]["docs"]["outputs"]["documents"])
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def test_the_plan_follows_what_matches(manuals: Workspace) -> None:
    """An added, changed or deleted file that matches is a reason to run; another one is none."""
    docs = manuals.folder / "docs"
    assert manuals.plan()["docs"]["status"] == "cached"
    (docs / "b.txt").write_text("changed\n")
    (docs / "new.txt").write_text("new\n")
    (docs / ".hidden.md").write_text("hidden\n")
    assert manuals.plan()["docs"]["status"] == "cached"
    (docs / "sub" / "c.md").write_text("# C\n\nthird\n")
    planned = manuals.plan()["docs"]
    files = {"docs/sub/c.md": "added"}
    assert planned["causes"] == [
        {"cause": "file", "path": "./docs/**/*.md", "files": files, "more": 0}
    ]
    assert documents(manuals.run()) == ["docs/a.md", "docs/sub/b.md", "docs/sub/c.md"]
    (docs / "sub" / "c.md").unlink()
    assert documents(manuals.run()) == ["docs/a.md", "docs/sub/b.md"]
    (docs / "a.md").write_text("# A\n\nfirst again\n")
    assert manuals.plan()["docs"]["status"] == "run"


def test_the_plan_names_what_changed(manuals: Workspace) -> None:
    """Up to three files, whatever was planned in between; where it is not known, the pattern."""
    docs = manuals.folder / "docs"
    (docs / "a.md").write_text("# A\n\nfirst again\n")
    assert "because docs/a.md changed\n" in manuals.call("plan", "spec.yaml").stdout
    (docs / "sub" / "b.md").unlink()
    for name in "cdefg":
        (docs / f"{name}.md").write_text(name)
    told = "because docs/a.md changed, docs/c.md added, docs/d.md added, and 4 more\n"
    assert told in manuals.call("plan", "spec.yaml").stdout
    refused = manuals.call("run", "spec.yaml", "--locked").stderr
    assert "docs: docs/a.md changed, docs/c.md added, docs/d.md added, and 4 more" in refused
    Store(manuals.folder / ".llmpipe").statcache.unlink()
    assert "because ./docs/**/*.md changed\n" in manuals.call("plan", "spec.yaml").stdout
    manuals.run()
    (docs / "a.md").write_text("# A\n\nfirst\n")
    assert "because docs/a.md changed\n" in manuals.call("plan", "spec.yaml").stdout


def test_any_name_of_a_file_can_be_told(manuals: Workspace) -> None:
    """Bytes that are not text, or that a terminal would obey, are shown as unknown."""
    (manuals.folder / "docs" / os.fsdecode(b"caf\xe9\x1b[2J.md")).write_text("# C\n")
    assert "because docs/caf\ufffd\ufffd[2J.md added\n" in manuals.call("plan", "spec.yaml").stdout
    assert len(documents(manuals.run())) == 3


def test_the_plan_names_what_changed_in_a_folder(manuals: Workspace) -> None:
    """A folder is as good as a pattern, the spec's own too; two files are told by their paths."""
    manuals.write(SPEC.replace("./docs/**/*.md", "."))
    manuals.run()
    (manuals.folder / "docs" / "sub" / "b.md").unlink()
    assert "because docs/sub/b.md removed\n" in manuals.call("plan", "spec.yaml").stdout


def test_another_name_for_the_same_files(manuals: Workspace) -> None:
    """The ids depend on the path, so a moved folder is a reason to run and is named as one."""
    (manuals.folder / "docs").rename(manuals.folder / "texts")
    manuals.write(SPEC.replace("docs/", "texts/"))
    (cause,) = manuals.plan()["docs"]["causes"]
    assert cause["field"] == "stages.docs.paths.0"
    assert (cause["old"], cause["new"]) == ("./docs/**/*.md", "./texts/**/*.md")
    assert documents(manuals.run()) == ["texts/a.md", "texts/sub/b.md"]


def test_the_folder_of_the_spec_itself(manuals: Workspace) -> None:
    """The lock file that each run writes there does not cause another run."""
    manuals.write(SPEC.replace("./docs/**/*.md", "."))
    manuals.run()
    assert manuals.run()["stages"]["docs"]["status"] == "cached"


def test_the_worker_looks_at_the_same_files(manuals: Workspace) -> None:
    """What comes to match after the plan fails the stage; what does not match is not looked at."""
    (manuals.folder / "docs" / "a.md").write_text("# A\n\nfirst again\n")
    project = Project.open(manuals.spec)
    plan = make_plan(project)["docs"]
    assert plan.key is not None
    node = project.graph.nodes["docs"]
    request = project.request(node, plan.key, plan.key_inputs, {}, log=manuals.folder / "log")
    (manuals.folder / "docs" / "new.txt").write_text("new\n")
    _check_inputs(request, project.store)
    (manuals.folder / "docs" / "new.md").write_text("new\n")
    with pytest.raises(StageError, match=r"^\./docs/\*\*/\*\.md changed while the stage waited"):
        _check_inputs(request, project.store)


def test_the_digest_is_that_of_the_manifest(tmp_path: Path) -> None:
    """Names below the folder with the digests of the files, sorted; the memory keeps them apart."""
    for name in ("a.md", "b.md", "c.txt"):
        (tmp_path / name).write_text(name)
    cache = StatCache(tmp_path / "home" / "statcache.sqlite")
    expected = manifest_digest((name, hash_file(tmp_path / name)) for name in ("a.md", "b.md"))
    time.sleep(0.05)
    for _ in range(2):
        assert cache.digest(tmp_path, "*.md") == expected
        assert cache.digest(tmp_path, "*.txt") != expected
        assert cache.digest(tmp_path) != expected
    cache.close()
