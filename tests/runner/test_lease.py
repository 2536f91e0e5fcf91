"""Leases: machines that share a store make each stage once. Two names for one machine make it two.

A machine's name is ``LLMPIPE_HOST``; locks of the kernel are not shared between two such names.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from processes import run_processes, wait_for
from workspace import CHAIN, Workspace

from llmpipe.runner.lease import read_owner

pytestmark = pytest.mark.slow  # its machines are processes, and leases expire in seconds

HOLD = """
import sys, time
from pathlib import Path
from llmpipe.runner import lease
lease.BEAT, lease.EXPIRY = 0.1, 1.5
locks, leases = Path(sys.argv[1]), Path(sys.argv[2])
locks.mkdir(exist_ok=True)
def waiting(owner): print("waits for", owner["stage"], flush=True)
with lease.hold(locks, leases, "k", {"stage": sys.argv[3], "head": None}, waiting) as held:
    print("has it", flush=True)
    sys.stdin.readline()
    print("lost" if held.lost else "kept", flush=True)
"""
GC = """
import sys
from llmpipe.runner import lease
from llmpipe.cli.main import main
lease.EXPIRY = 1.0
sys.exit(main(["gc", "spec.yaml"]))
"""


class Machine:
    """A process that holds the lease, or waits for it, on a machine of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        leases = folder / "leases"
        leases.mkdir(exist_ok=True)
        self.lease = leases / "k.json"
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, folder / name, leases, name],
            env={**os.environ, "LLMPIPE_HOST": name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ends(self) -> str:
        """Let it release the lease; return whether it had kept it."""
        return self.process.communicate("\n", timeout=30)[0].strip()

    def kill(self) -> None:
        """Kill it as a power failure would."""
        self.process.kill()
        self.process.communicate()


def test_two_machines_on_one_store_make_each_stage_once(workspace: Workspace) -> None:
    """Both are done; what one makes the other waits for and finds, and it says for whom."""
    workspace.write(CHAIN.replace("echo first >>", "sleep 2; echo first >>"))
    processes = [workspace.start("run", "spec.yaml", LLMPIPE_HOST=name) for name in "ab"]
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert Counter(workspace.trace()) == {"first": 1, "second": 1, "third": 1}
    node = os.uname().nodename
    assert any(f"on {node}, which is making stage 'first'" in text for text in told)
    leases = workspace.folder / ".llmpipe" / "store" / "leases"
    assert list(leases.iterdir()) == []


def test_a_lease_is_waited_for_as_long_as_it_beats(tmp_path: Path) -> None:
    """However long that is."""
    first = Machine(tmp_path, "first")
    assert first.says() == "has it"
    second = Machine(tmp_path, "second")
    assert second.says() == "waits for first"
    time.sleep(3)
    assert (read_owner(first.lease) or {})["stage"] == "first"
    assert first.ends() == "kept"
    assert second.says() == "has it"
    assert second.ends() == "kept"
    assert not first.lease.exists()


@pytest.mark.parametrize("skew", [-1e6, 1e6])
def test_the_lease_of_a_dead_machine_expires(tmp_path: Path, skew: float) -> None:
    """Whatever its clock said: only the clock of the machine that waits counts."""
    first = Machine(tmp_path, "first")
    assert first.says() == "has it"
    first.kill()
    owner = read_owner(first.lease)
    assert owner is not None
    moment = time.time() + skew
    first.lease.write_text(
        json.dumps(
            {**owner, "since": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(moment))}
        )
    )
    os.utime(first.lease, (moment, moment))
    begun = time.monotonic()
    second = Machine(tmp_path, "second")
    assert second.says() == "waits for first"
    assert second.says() == "has it"
    assert time.monotonic() - begun >= 1.5
    assert second.ends() == "kept"


def test_a_machine_takes_over_at_once_what_it_held_itself(tmp_path: Path) -> None:
    """The kernel says that its owner is dead: it does not wait for heartbeats."""
    first = Machine(tmp_path, "one")
    assert first.says() == "has it"
    first.kill()
    again = Machine(tmp_path, "one")
    assert again.says() == "has it"
    assert again.ends() == "kept"


def test_a_machine_that_slept_loses_its_lease_and_does_not_take_it_back(tmp_path: Path) -> None:
    """It learns so at its next heartbeat, and leaves the lease of the other one alone."""
    first = Machine(tmp_path, "first")
    assert first.says() == "has it"
    first.process.send_signal(signal.SIGSTOP)
    second = Machine(tmp_path, "second")
    assert second.says() == "waits for first"
    assert second.says() == "has it"
    first.process.send_signal(signal.SIGCONT)
    time.sleep(0.5)
    assert first.ends() == "lost"
    assert (read_owner(second.lease) or {})["stage"] == "second"
    assert second.ends() == "kept"


def test_many_machines_take_over_one_dead_lease_one_by_one(tmp_path: Path) -> None:
    """Each has it once, and never two at a time."""
    dead = Machine(tmp_path, "dead")
    assert dead.says() == "has it"
    dead.kill()
    waiting = {name: Machine(tmp_path, name) for name in ("m0", "m1", "m2", "m3")}
    served = []
    for _ in range(4):
        wait_for(lambda: (read_owner(dead.lease) or {}).get("stage") in waiting, 20)
        stage = (read_owner(dead.lease) or {})["stage"]
        served.append(stage)
        assert waiting.pop(stage).ends().splitlines()[-2:] == ["has it", "kept"]
    assert sorted(served) == ["m0", "m1", "m2", "m3"]


def test_gc_waits_for_other_machines(workspace: Workspace) -> None:
    """One that is alive keeps the store; one whose lease does not change for a while is dead."""
    workspace.run()
    home = workspace.folder / ".llmpipe"
    lease = home / "store" / "leases" / f"{'0' * 64}.json"
    owner: dict[str, Any] = {"pid": 7, "start": "1", "boot": "elsewhere", "run": "r", "node": "far"}
    owner |= {"stage": "slow", "since": "2026-01-01T00:00:00+00:00", "head": None, "beat": "0"}
    lease.write_text(json.dumps(owner))
    command = [sys.executable, "-c", GC]
    process = subprocess.Popen(
        command, cwd=workspace.folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    for beat in range(100):
        lease.write_text(json.dumps({**owner, "beat": str(beat)}))
        if process.poll() is not None:
            break
        time.sleep(0.1)
    assert process.returncode == 1
    assert process.communicate()[1].startswith(f"{home} is in use on another machine")
    subprocess.run(command, cwd=workspace.folder, check=True, capture_output=True)
    assert not lease.exists()
    assert run_processes(home) == []
