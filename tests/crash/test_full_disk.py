"""A disk that fills up at every kind of write: a clear error, a whole store, and a run that goes on.

The store lies on a file system of its own that is left less and less room, byte by byte of memory
and file by file: with each step another write is the one that fails. Where a file system cannot be
mounted, a limit on the size of files stands in for it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash.pipeline import HANG_S, Pipeline, digests
from processes import run_processes

pytestmark = pytest.mark.heavy

PAGE = 4096
SIZE = 4 << 20

LIMITED = """\
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from llmpipe.cli.main import main
sys.exit(main(["run", "spec.yaml", "--json"]))
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path | None]:
    """A small file system of its own, or None where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    options = f"size={SIZE},nr_inodes=400"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
    )
    if mounted.returncode:
        yield None
        return
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path, free: int) -> None:
    """Leave this many bytes free."""
    found = os.statvfs(disk)
    taken = found.f_bavail * found.f_frsize - free
    with (disk / "filler").open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, taken)


def fill_files(disk: Path, free: int) -> None:
    """Leave room for this many more files."""
    (disk / "fillers").mkdir()
    for i in range(os.statvfs(disk).f_favail - free):
        (disk / "fillers" / str(i)).touch()


def is_clear(code: int, out: str, err: str) -> bool:
    """Tell whether a run that found no room said so, as a person and as JSON; return whether it did."""
    assert "Traceback" not in err, err
    if code == 0:
        return False
    assert code == 1, err
    assert "full" in err or "No space left" in err or "exceed" in err or "too large" in err, err
    if out:
        assert json.loads(out)["status"] == "failed"
    return True


def store_is_whole(pipeline: Pipeline) -> None:
    """Every record's artifacts are there, byte by byte."""
    verified = subprocess.run(
        [sys.executable, "-m", "llmpipe", "cache", "verify", "spec.yaml", "--json"],
        cwd=pipeline.folder,
        env={**os.environ, "LLMPIPE_HOME": str(pipeline.home)},
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


def go_on(pipeline: Pipeline, expected: Any) -> None:
    """With room again, the store is whole and the next run ends as if nothing had been."""
    while run_processes(pipeline.home):
        pass  # workers whose head gave up first
    if (pipeline.home / "format").exists():
        store_is_whole(pipeline)
    assert digests(pipeline.run()) == expected


def test_a_disk_that_fills_up_at_any_write(
    disk: Path | None, teacher: Any, undisturbed: Any, long_form: bool, tmp_path: Path
) -> None:
    """With ever more room, every write is once the one that fails; each time all is well after."""
    expected = digests(undisturbed)
    if disk is None:
        limits(tmp_path, teacher.url, expected, long_form)
        return
    pages = range(0, 60, 1 if long_form else 6)
    files = range(0, 90, 1 if long_form else 9)
    refused = 0
    for filler, steps, unit in ((fill, pages, PAGE), (fill_files, files, 1)):
        for step in steps:
            pipeline = Pipeline(disk / "pipeline", teacher.url)
            filler(disk, step * unit)
            process = pipeline.start()
            out, err = process.communicate(timeout=HANG_S)
            refused += is_clear(process.returncode, out, err)
            subprocess.run(["rm", "-rf", disk / "filler", disk / "fillers"], check=True)
            go_on(pipeline, expected)
            subprocess.run(["rm", "-rf", pipeline.folder], check=True)
    assert refused >= (len(pages) + len(files)) // 2


def limits(folder: Path, url: str, expected: Any, long_form: bool) -> None:
    """Do the same with a limit on the size of files, from one byte to larger than all."""
    for exponent in range(0, 20, 1 if long_form else 3):
        pipeline = Pipeline(folder / f"limit-{exponent}", url)
        result = subprocess.run(
            [sys.executable, "-c", LIMITED, str(2**exponent)],
            cwd=pipeline.folder,
            capture_output=True,
            text=True,
        )
        is_clear(result.returncode, result.stdout, result.stderr)
        go_on(pipeline, expected)


def test_a_limit_on_the_size_of_files(
    teacher: Any, undisturbed: Any, long_form: bool, tmp_path: Path
) -> None:
    """``ulimit -f``, whatever it is, is a clear error as well, and the next run goes on."""
    limits(tmp_path, teacher.url, digests(undisturbed), long_form)
