"""Packages that offer stage kinds, and the command line where they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CLASS = """
from llmpipe.contracts import Ports, StageConfig, StageDefaults, StageResult
class Config(StageConfig, frozen=True, kw_only=True):
    pass
class Odd(StageDefaults):
    Config = Config
    VERSION = 1
    determinism = "exact"
    @staticmethod
    def ports(config): return Ports({}, {})
    @staticmethod
    def run(ctx): return StageResult({})
"""

WHO = "the stage kind 'odd' of the package odd-kinds 1.2 cannot be used: "


def path_with(packages: Path) -> str:
    """Return a PYTHONPATH that has these packages, too."""
    return os.pathsep.join(filter(None, [str(packages), os.environ.get("PYTHONPATH", "")]))


def llmpipe(
    folder: Path, packages: Path | None, *arguments: str, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line where these packages are installed, too."""
    path = {} if packages is None else {"PYTHONPATH": path_with(packages)}
    return subprocess.run(
        [sys.executable, "-m", "llmpipe", *arguments],
        cwd=folder,
        env={**os.environ, **path, **env},
        capture_output=True,
        text=True,
    )


def offer(
    folder: Path,
    points: str,
    code: str = "",
    name: str = "odd-kinds",
    group: str = "llmpipe.stages",
) -> Path:
    """Make a folder of packages in which one offers these entry points, as pip would leave it."""
    packages = folder / "packages"
    info = packages / f"{name.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}\n")
    if code:
        (packages / "odd.py").write_text(code)
    return packages


def refused(folder: Path, packages: Path, kind: str = "odd") -> str:
    """Return the message with which a spec that uses a kind is refused."""
    (folder / "spec.yaml").write_text(f"version: 1\nname: x\nstages:\n  a: {{kind: {kind}}}\n")
    result = llmpipe(folder, packages, "run", "spec.yaml")
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr
