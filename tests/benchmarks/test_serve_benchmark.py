"""The benchmarks of a served model, run as their users do, on little."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from openai_endpoint import Endpoint

from benchmarks.serve.load import Load, storm
from benchmarks.serve.peers import Address, Peer, Setting

ROOT = Path(__file__).parents[2]


@pytest.mark.heavy
def test_every_batch_and_both_ways_have_figures() -> None:
    """llama.cpp's own batch, a given one and the measured one; directly and through the guard."""
    command = [sys.executable, "-m", "benchmarks.serve", "--threads", "1", "--rounds", "1", "--batches",
               "16", "--prompt", "120", "--context", "512", "--pieces", "10"]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if "| " in line]
    named = {name: cells for name, *cells in rows}
    assert {"2048 (llama.cpp's own)", "16", "llama.cpp", "the guard"} <= set(named)
    assert any(name.startswith("measured: ") for name in named)
    assert all(
        cells[0].endswith("s") for name, cells in named.items() if name not in ("batch", "asked")
    )


@pytest.mark.heavy
def test_servers_under_load_have_figures() -> None:
    """Every request is counted; llama-cpp-python is compared, or named as missing."""
    command = [sys.executable, "-m", "benchmarks.serve", "load", "--threads", "1", "--rounds", "1",
               "--clients", "2", "--requests", "2", "--tokens", "4", "--context", "256"]  # fmt: skip
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if "| " in line]
    named = {name: cells for name, *cells in rows if name != "server"}
    assert {"llmpipe serve", "the bare engine"} <= set(named)
    for name in ("llmpipe serve", "the bare engine"):
        requests, failed, cut, speed, worst = named[name]
        assert (requests, failed, cut) == ("4", "0", "0")
        assert float(speed) > 0
        assert worst.endswith("s")
    assert "requests failed or cut: 0 (target ≤ 0): met" in result.stdout
    compared = any(name.startswith("llama-cpp-python") for name in named)
    assert compared != ("Not compared with llama-cpp-python" in result.stdout)


def test_what_fails_and_what_is_cut_is_counted() -> None:
    """A refusal by its status, a stream without a finish reason as cut; neither is left out."""
    with Endpoint() as endpoint:
        endpoint.reply = lambda body: ("All of it.", "stop")
        whole = storm(endpoint.url.removesuffix("/v1"), "m", None, Load(2, 2, 4))
        endpoint.reply = lambda body: ("A part", None)
        cut = storm(endpoint.url.removesuffix("/v1"), "m", None, Load(2, 2, 4))
    gone = storm(endpoint.url.removesuffix("/v1"), "m", None, Load(2, 1, 4))
    assert [each.text for each in whole.asked] == ["All of it."] * 4
    assert (whole.cut(), whole.failures().total()) == (0, 0)
    assert (cut.cut(), cut.failures().total()) == (4, 0)
    assert (gone.cut(), gone.failures().total()) == (0, 2)


def test_a_server_that_does_not_answer_ends_the_benchmark_at_once() -> None:
    """It is named with its reason, before the load is put on the others again."""
    with Endpoint() as endpoint:
        url = endpoint.url.removesuffix("/v1")
    peer = Peer("the other", lambda setting: nullcontext(Address(url)))
    with pytest.raises(SystemExit, match=r"the other fails at its first request: .*refused"):
        peer.under(Setting(Path("m.gguf"), 1, 256, 1), Load(2, 2, 4))
