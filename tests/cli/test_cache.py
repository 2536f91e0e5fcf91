"""`cache verify`: every byte is read again; what is rotten is named, taken out and made again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import pytest

TREE = """\
version: 1
name: tree
stages:
  tree: {kind: command, run: "echo tree >> trace; mkdir -p ${outputs.o}/sub; echo x > ${outputs.o}/sub/x", outputs: {o: folder}}
  last: {kind: command, run: "echo last >> trace; cat ${inputs.i}/sub/x > ${outputs.o}", inputs: {i: tree}, outputs: {o: o.txt}}
"""


def verify(workspace: Any, code: int = 0) -> dict[str, Any]:
    """Verify the store and return what it says as data."""
    result = workspace.call("cache", "verify", "spec.yaml", "--json")
    assert result.returncode == code, result.stderr
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def flip(path: Path) -> None:
    """Flip one bit of a file, behind the store's back, and leave its times as they were."""
    found = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    path.chmod(0o444)


def test_a_flipped_bit_is_found_and_its_stage_made_anew(
    workspace: Any, statuses: Callable[..., dict[str, str]]
) -> None:
    """One bit is named by artifact, kind and output; exactly its stage runs; then all is well."""
    made = workspace.run()["stages"]
    workspace.trace()
    path = Path(made["second"]["outputs"]["o"])
    flip(path)
    assert set(statuses(workspace.run()).values()) == {"cached"}, "only verify reads every byte"
    told = workspace.call("cache", "verify", "spec.yaml")
    assert told.returncode == 1
    name = path.parents[1].name
    assert told.stdout == (
        f"{name[:16]} (command: o): o.txt has changed since it was stored\n"
        "3 artifacts, 1 rotten and removed\n"
    )
    assert verify(workspace) == {
        "artifacts": 2, "rotten": [], "unreadable": [], "records": [],
    }  # fmt: skip
    plan = workspace.plan()
    assert plan["second"]["causes"] == [{"cause": "missing", "output": "o"}]
    assert plan["first"]["status"] == "cached"
    again = workspace.run()["stages"]
    assert workspace.trace() == ["second"]
    assert again["second"]["outputs"] == made["second"]["outputs"]
    assert verify(workspace)["artifacts"] == 3


def spoil_more(data: Path) -> None:
    (data / "sub" / "strange.json").write_text("{}")


def spoil_missing(data: Path) -> None:
    (data / "sub" / "x").unlink()


def spoil_manifest(data: Path) -> None:
    path = data.parent / "manifest.json"
    path.write_text(path.read_text().replace("sub/x", "sub/y"))


def spoil_entries(data: Path) -> None:
    (data.parent / "manifest.json").write_text("[]\n")


def spoil_json(data: Path) -> None:
    (data.parent / "manifest.json").write_text("[{")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (spoil_more, "sub/strange.json does not belong to it"),
        (spoil_missing, "x is missing"),
        (spoil_manifest, "its manifest has changed"),
        (spoil_entries, "its manifest has changed"),
        (spoil_json, "cannot be read: "),
    ],
)
def test_whatever_else_has_changed_is_found(
    workspace: Any, spoil: Callable[[Path], None], problem: str
) -> None:
    """Files that were added or removed, and a manifest that was changed, are rot as well."""
    workspace.write(TREE)
    data = Path(workspace.run()["stages"]["tree"]["outputs"]["o"])
    workspace.trace()
    spoil(data)
    (item,) = verify(workspace, code=1)["rotten"]
    assert item["object"] == data.parent.name
    assert item["made_by"] == "command: o"
    assert item["problem"].startswith(problem)
    workspace.run()
    assert workspace.trace() == ["tree"]
    assert verify(workspace)["rotten"] == []


UNPRIVILEGED = """\
import locale, os, sys  # argparse wants locale late, when Python's own files cannot be read
from llmpipe.cli import cache
from llmpipe.cli.main import main
os.setgid(65534); os.setuid(65534)
sys.exit(main(["cache", "verify", "spec.yaml", *sys.argv[1:]]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hand a store to somebody else")
def test_what_may_not_be_read_stays(workspace: Any) -> None:
    """Whether it is damaged is unknown: it is named but not removed, and the exit status is 1."""
    path = Path(workspace.run()["stages"]["second"]["outputs"]["o"])
    ours = takewhile(lambda folder: folder != Path(gettempdir()), workspace.folder.parents)
    for folder in (workspace.folder, *ours):
        folder.chmod(0o755)
    subprocess.run(["chown", "-R", "65534", workspace.folder / ".llmpipe"], check=True)
    path.chmod(0)
    result = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED], cwd=workspace.folder, capture_output=True, text=True
    )
    assert result.returncode == 1, result.stderr
    assert "o.txt cannot be read; make it readable: chmod -R u+rX" in result.stdout
    assert result.stdout.endswith("3 artifacts, 0 rotten, 1 unreadable\n")
    assert path.exists()
