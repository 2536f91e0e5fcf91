"""`get`: an artifact becomes the user's own file or folder, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

SPEC = """\
version: 1
name: things
stages:
  both:
    kind: command
    run: "echo file > ${outputs.file}; chmod 755 ${outputs.file}; mkdir -p ${outputs.tree}/sub; echo x > ${outputs.tree}/sub/x"
    outputs: {file: script.sh, tree: tree}
  one: {kind: command, run: "cp ${inputs.i} ${outputs.o}", inputs: {i: both.file}, outputs: {o: one.txt}}
  swept: {kind: command, run: "echo $X > ${outputs.o}", env: {X: "1"}, outputs: {o: o.txt}, matrix: {env.X: ["0.1", "0.2"]}}
"""


@pytest.fixture
def things(workspace: Any) -> Any:
    """A folder in which all of it has run."""
    workspace.write(SPEC)
    workspace.run()
    return workspace


def get(workspace: Any, artifact: str, path: str | Path, code: int = 0) -> str:
    """Call get; return what it printed, or its error."""
    result = workspace.call("get", "spec.yaml", artifact, str(path))
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return str(result.stderr if code else result.stdout.rstrip("\n"))


def test_a_file_and_a_folder_become_the_users_own(things: Any) -> None:
    """The copies may be written to and keep their modes; folders above them are made."""
    assert get(things, "both.file", "new/deep/mine.sh") == "new/deep/mine.sh"
    mine = things.folder / "new" / "deep" / "mine.sh"
    assert mine.read_text() == "file\n"
    assert mine.stat().st_mode & 0o700 == 0o700
    get(things, "both.tree", "copy")
    copied = things.folder / "copy" / "sub" / "x"
    assert copied.stat().st_mode & 0o200
    copied.write_text("changed")
    assert things.call("cache", "verify", "spec.yaml").returncode == 0
    assert get(things, "both.file", "copy") == "copy/script.sh"  # a file goes into a folder
    assert (things.folder / "copy" / "script.sh").exists()


def test_the_default_output_need_not_be_named(things: Any) -> None:
    """A stage with one output needs no name; of several the error lists them."""
    assert get(things, "one", "a.txt2") == "a.txt2"
    error = get(things, "both", "b", code=2)
    assert "both has several outputs: say which" in error
    assert "it has: both.file, both.tree" in error


def test_mistakes_are_suggested(things: Any) -> None:
    """A misspelled stage, output or point ends in 2 with the nearest that there is."""
    assert "did you mean 'both'?" in get(things, "bth.file", "x", code=2)
    assert "did you mean 'tree'?" in get(things, "both.tre", "x", code=2)
    error = get(things, 'swept@env.X="0.3"', "x", code=2)
    assert "has no stage 'swept@env.X=\"0.3\"'" in error
    assert "did you mean 'swept@env.X=" in error


def test_a_point_of_a_sweep(things: Any) -> None:
    """A point is named as everywhere; the stage alone may be either, and both are listed."""
    get(things, 'swept@env.X="0.2"', "two.txt")
    get(things, 'swept@env.X="0.1".o', "one.txt")
    assert (things.folder / "two.txt").read_text() == "0.2\n"
    assert (things.folder / "one.txt").read_text() == "0.1\n"
    error = get(things, "swept", "x", code=2)
    assert "'swept' is made at several points: say which" in error
    assert 'swept@env.X="0.1"' in error


def test_nothing_is_overwritten(things: Any) -> None:
    """What exists is refused and untouched: files, folders for folders, links that lead nowhere."""
    (things.folder / "there.txt").write_text("mine")
    (things.folder / "folder").mkdir()
    (things.folder / "link").symlink_to("nowhere")
    for artifact, path in (("one", "there.txt"), ("both.tree", "folder"), ("one", "link")):
        assert f"{path} exists already" in get(things, artifact, path, code=2)
    assert (things.folder / "there.txt").read_text() == "mine"
    assert (things.folder / "link").is_symlink()


def test_what_is_not_up_to_date_is_refused(workspace: Any) -> None:
    """A stage that has not run, or would run again, is not handed out; no store is made for that."""
    workspace.write(SPEC)
    error = get(workspace, "one", "x", code=1)
    assert "one is not up to date in the store" in error
    assert "make it first: llmpipe run spec.yaml --only one" in error
    assert not (workspace.folder / ".llmpipe").exists()
    assert "--only 'swept@env.X=\"0.1\"'" in get(workspace, 'swept@env.X="0.1"', "x", code=1)
    workspace.run()
    workspace.write(SPEC.replace("echo file", "echo other"))
    get(workspace, "one", "x", code=1)
    assert not (workspace.folder / "x").exists()


def test_a_target_that_cannot_be_written(things: Any) -> None:
    """Standard output, a folder that is a file and a full disk are told and leave nothing."""
    (things.folder / "file").write_text("")
    assert "does not write to standard output" in get(things, "one", "-", code=2)
    assert not (things.folder / "-").exists()
    assert "file/x cannot be written: " in get(things, "one", "file/x", code=1)
    if not Path("/dev/full").exists() or os.geteuid() != 0:
        return
    disk = things.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4096", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        return
    try:
        (disk / "filler").write_bytes(b"x" * 4096)
        for artifact in ("one", "both.tree"):
            error = get(things, artifact, disk / "x", code=1)
            assert "x cannot be written: No space left on device" in error
            assert [path.name for path in disk.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


SLOW = """\
import shutil, sys, time
from llmpipe.cli.main import main
copy = shutil.copy
def slow(source, target):
    copy(source, target)
    open("begun", "w").close()
    time.sleep(30)
shutil.copy = slow
sys.exit(main(["get", "spec.yaml", "both.tree", "out"]))
"""


def test_an_interrupt_leaves_nothing_half_copied(things: Any) -> None:
    """Ctrl-C in the middle of a copy ends in 130, with neither the target nor a part of it."""
    process = subprocess.Popen([sys.executable, "-c", SLOW], cwd=things.folder)
    deadline = time.monotonic() + 30
    while not (things.folder / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list(things.folder.glob(".out.partial-*"))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert not list(things.folder.glob("*out*"))
    assert not list(things.folder.glob(".out*"))
