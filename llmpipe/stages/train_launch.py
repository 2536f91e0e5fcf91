"""Check how a ``train`` stage starts its processes: launcher, arguments and environment."""

from __future__ import annotations

import re
from collections.abc import Iterator

from llmpipe.backends.axolotl.config import KeyPath
from llmpipe.backends.axolotl.launchers import installed_launchers
from llmpipe.contracts import Finding
from llmpipe.stages.train_config import TrainConfig

_NOT_LAUNCHERS = {
    "deepspeed": "Axolotl's command line has no such launcher: torchrun starts the processes, and "
    "deepspeed in the axolotl block says how they share the model; write launcher: torchrun, "
    "args: [--nproc_per_node=8], and axolotl: {deepspeed: zero2}",
    "ray": "Axolotl starts Ray by its configuration: write axolotl: {use_ray: true, "
    "ray_num_workers: 8} without a launcher; each worker takes a GPU",
}
"""Names that people look for here, and what starts such a training."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def launch_problems(config: TrainConfig) -> Iterator[tuple[KeyPath, str]]:
    """Yield what is wrong with the field ``launch`` by itself."""
    launch = config.launch
    if why := _NOT_LAUNCHERS.get(launch.launcher):
        yield ("launch", "launcher"), why
    elif launch.args and launch.launcher == "python":
        yield ("launch", "args"), "launcher: python takes none"
    for i, word in enumerate(launch.args):
        option, *rest = word.split(maxsplit=1) or [""]
        if option.startswith("-") and rest and "=" not in option:
            yield ("launch", "args", i), f"two words in one: write {option}={rest[0]}"
        if word == "--" or option in ("-m", "--module"):
            yield ("launch", "args", i), f"{option} is set by Axolotl, which names what is started"
    for name in launch.env:
        if not _NAME.fullmatch(name):
            yield ("launch", "env"), f"{name!r} cannot be the name of an environment variable"


def launcher_findings(config: TrainConfig) -> Iterator[Finding]:
    """Yield a launcher that the installed Axolotl does not have."""
    known, launcher = installed_launchers(), config.launch.launcher
    if known and launcher not in known and launcher not in _NOT_LAUNCHERS:
        message = f"the installed Axolotl has no launcher {launcher!r}"
        yield Finding(("launch", "launcher"), message, f"it has {', '.join(known)}")
