"""A Python that has imported Axolotl already, for tests that train one tiny model after another.

Importing Axolotl costs such a training nearly all of its time. A command that starts one of
`MODULES` by ``-m`` is therefore forked from a process that has imported what they need; it has its
own environment, folder, files and session, and runs to the end of an interpreter. Every other
command, and one with variables that libraries may have read while they were imported, is started as
usual.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

MODULES = ("axolotl.cli.main", "axolotl_labels.bad_row", "axolotl_labels.show")
"""What is forked."""
IMPORTED = (
    "axolotl.cli.art",
    "axolotl.cli.args",
    "axolotl.cli.checks",
    "axolotl.cli.config",
    "axolotl.cli.train",
    "axolotl.common.datasets",
    "axolotl.core.builders",
    "axolotl.loaders.patch_manager",
    "axolotl.prompt_strategies.bradley_terry",
    "axolotl.prompt_strategies.chat_template",
    "axolotl.train",
    "axolotl.utils.data",
    "bitsandbytes",
    "peft",
    "transformers.models.llama.modeling_llama",
    "transformers.models.llama.tokenization_llama",
    "trl",
    "wandb",
)
"""What is imported before. A training imports some more, of what its settings need."""
PER_COMMAND = frozenset(
    {"HF_DATASETS_CACHE", "OMP_NUM_THREADS", "PATH", "PYTEST_CURRENT_TEST", "PYTHONPATH"}
)
"""Variables in which a forked command may differ from the process that it is forked from."""
LONGEST = 1 << 20
COLD = b"cold"


@contextlib.contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """Start the process; yield a Python beside the programs of the real one."""
    real = Path(sys.executable)
    for program in real.parent.iterdir():
        (folder / program.name).symlink_to(program)
    address, python = folder / "socket", folder / real.name
    python.unlink()
    python.write_text(
        f"#!{real} -IS\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import warm_python\nwarm_python.ask({str(address)!r}, {str(real)!r}, sys.argv[1:])\n"
    )
    python.chmod(0o755)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(address))
        listening.listen()
        server = subprocess.Popen(
            [real, __file__, str(listening.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_environment(),
            pass_fds=[listening.fileno()],
        )
    with server:  # it also ends with its standard input, if this process is killed
        try:
            yield python
        finally:
            server.kill()


def _environment() -> dict[str, str]:
    from llmpipe.backends.axolotl.training import portable_environment

    ours = {name: value for name, value in os.environ.items() if name not in PER_COMMAND}
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**ours, **kept, **portable_environment(offline=True)}


def ask(address: str, python: str, words: list[str]) -> NoReturn:
    """Have a command forked and end as it ends; or become the real Python."""
    if words[:1] == ["-m"] and words[1] in MODULES:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.connect(address)
            asked = {"words": words[1:], "env": dict(os.environ), "cwd": str(Path.cwd())}
            socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
            answer = server.recv(LONGEST)
            if answer != COLD:
                code = int(answer)
                if code < 0:
                    os.kill(os.getpid(), -code)
                os._exit(code)
    os.execv(python, [python, *words])


def serve(descriptor: int) -> dict[str, Any] | None:
    """Fork commands until standard input ends; return in each fork with what it is to run."""
    import gc
    import importlib

    started_with = dict(os.environ)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    set_by_imports = dict(os.environ.items() - started_with.items())
    running: dict[int, tuple[int, socket.socket]] = {}
    with socket.socket(fileno=descriptor) as listening:
        while True:
            callers = {caller.fileno(): end for end, (_, caller) in running.items()}
            ready, _, _ = select.select([0, listening, *running, *callers], [], [])
            if 0 in ready:
                return None
            for end in {callers.get(file, file) for file in ready if file is not listening}:
                _finish(*running.pop(end), end)
            if listening in ready and (asked := _take(listening, running, started_with)):
                return {**asked, "env": asked["env"] | set_by_imports}


def _finish(pid: int, caller: socket.socket, end: int) -> None:
    """Tell the caller how its command ended. The command of a caller that is gone is killed."""
    with contextlib.suppress(ProcessLookupError):
        if not select.select([end], [], [], 0)[0]:
            os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(end)
    with contextlib.suppress(OSError), caller:
        caller.send(str(code).encode())


def _take(
    listening: socket.socket,
    running: dict[int, tuple[int, socket.socket]],
    started_with: dict[str, str],
) -> dict[str, Any] | None:
    """Fork for the next caller; return what it asks for in the fork, None in the server."""
    caller, _ = listening.accept()
    message, files, _, _ = socket.recv_fds(caller, LONGEST, 3)
    asked: dict[str, Any] = json.loads(message)
    differing = {name for name, _ in asked["env"].items() ^ started_with.items()}
    if differing - PER_COMMAND:
        caller.send(COLD)
        caller.close()
    elif pid := os.fork():
        running[os.pidfd_open(pid)] = pid, caller
    else:
        caller.close()
        for end, (_, other) in running.items():
            os.close(end)
            other.close()
        os.setsid()
        for target, file in enumerate(files):
            os.dup2(file, target)
            os.close(file)
        return asked
    for file in files:
        os.close(file)
    return None


def become(asked: dict[str, Any]) -> None:
    """Run a module as ``python -m`` would in a process of its own."""
    import runpy
    import warnings

    import datasets
    import torch

    inherited = [str(Path(path).absolute()) for path in _python_path(os.environ)]
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    rest = [path for path in sys.path[1:] if path not in inherited]
    sys.path[:] = [str(Path.cwd()), *_python_path(os.environ), *rest]
    if cache := os.environ.get("HF_DATASETS_CACHE"):
        datasets.config.HF_DATASETS_CACHE = Path(cache)
        datasets.config.DOWNLOADED_DATASETS_PATH = Path(cache) / "downloads"
        datasets.config.EXTRACTED_DATASETS_PATH = Path(cache) / "downloads" / "extracted"
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    module, *arguments = asked["words"]
    sys.argv = [module, *arguments]
    warnings.filterwarnings("ignore", r".* found in sys\.modules", RuntimeWarning)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _python_path(environment: Any) -> list[str]:
    return [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]


if __name__ == "__main__" and (command := serve(int(sys.argv[1]))):
    become(command)
