"""Find the folders that a training process searches for Python modules (plugins, reward functions).

A stage's ``launch.env.PYTHONPATH`` replaces ours completely. llmpipe's working folder is not
searched. Relative entries do not work, because the process runs in its own folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def python_path(launch_env: Mapping[str, str]) -> str:
    """Return a training's ``PYTHONPATH``: that of its stage, or else ours."""
    return launch_env.get("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


def search_path(modules: str) -> list[str]:
    """Return the folders that a training with this ``PYTHONPATH`` searches, in order."""
    ours = {str(Path(entry).absolute()) for entry in _entries(python_path({}))}
    first = sys.path[:1]
    installed = sys.path[1:] if first in ([""], [str(Path.cwd())]) else sys.path
    return [
        *(entry for entry in _entries(modules) if Path(entry).is_absolute()),
        *(entry for entry in installed if entry not in ours),
    ]


def _entries(modules: str) -> list[str]:
    return [entry for entry in modules.split(os.pathsep) if entry]
