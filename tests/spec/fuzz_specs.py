"""Throw specs and bytes at the planner for a while: no traceback, no second lost, no memory eaten.

A program of its own, so that its memory is its own: ``python fuzz_specs.py SECONDS FOLDER``. It
prints how many specs it tried and how many of them were sound.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from llmpipe.cli.main import main
from llmpipe.registry import KINDS
from llmpipe.spec.schema import strict_schema

MAX_SECONDS = 1.0
MAX_MEGABYTES = 100

WORDS = sorted(
    {"version", "name", "stages", "params", "profiles", "extends", "cache", "remote", "<<", *KINDS}
    | {
        field
        for kind in KINDS
        for definition in strict_schema(kind)["$defs"].values()
        for field in definition.get("properties", {})
    }
)
TEXTS = [
    "a", "b", "a.o", "base", "./rows.jsonl", "../../etc/passwd", "/etc/passwd", "~", "./missing",
    "org/name", "org/name@main", "pkg://json/decoder.py", "pkg://nothing/x", "${params.x}",
    "${params.y}", "$${HOME}", "${secret:S}", "${env:HOME}", "${env:", "${stages.a.loss}",
    "${inputs.i}", "cat ${inputs.i} > ${outputs.o}", "5e-4", "no", "1:30", "\\0", "\\u2028", "é" * 99,
    "@", "a@b=c", "a/../b", ".", "..", "", " ", "llama.cpp", "openai", "evol-instruct", "messages",
]  # fmt: skip

scalars = (
    st.sampled_from(TEXTS)
    | st.sampled_from(WORDS)
    | st.text(max_size=8)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.booleans()
    | st.none()
)
trees = st.recursive(
    scalars,
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | st.sampled_from(TEXTS), below, max_size=6)
    ),
    max_leaves=30,
)
SOUND: dict[str, dict[str, Any]] = {
    "command": {"run": "cat ${inputs.i} > ${outputs.o}", "inputs": {"i": "./rows.jsonl"},
                "outputs": {"o": "o.jsonl"}},
    "format": {"data": "./rows.jsonl", "to": "messages"},
    "train": {"base_model": "org/name", "data": "./rows.jsonl", "axolotl": {"adapter": "lora"}},
    "export": {"model": "a", "quantize": ["q8_0"]},
    "evaluate": {"models": ["a"], "data": "b"},
    "select": {"of": "a", "by": "b.loss", "mode": "min"},
    "serve": {"model": "a"},
    "generate": {"method": "evol-instruct", "seeds": "a", "count": 2,
                 "teacher": {"engine": "openai", "model": "m", "base_url": "http://localhost/v1"}},
}  # fmt: skip


@st.composite
def stages(draw: st.DrawFn) -> dict[str, Any]:
    """Return a stage that is nearly sound: a real one with a field or two replaced, gone or new."""
    kind = draw(st.sampled_from(sorted(SOUND)))
    stage: dict[str, Any] = {"kind": kind, **SOUND[kind]}
    for field in draw(st.lists(st.sampled_from([*stage, *WORDS]), max_size=1)):
        if draw(st.booleans()):
            stage.pop(field, None)
        else:
            stage[field] = draw(trees)
    if draw(st.integers(0, 4)) == 0:
        axes = st.sampled_from(["run", "to", "axolotl.lora_r", "count", "x.y", "exclude", "kind"])
        stage["matrix"] = draw(st.dictionaries(axes, st.lists(scalars, max_size=3), max_size=2))
    return stage


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Return a spec that is nearly sound, as YAML."""
    names = st.sampled_from(["a", "b", "c", "d"] * 5 + ["A", "a.b", "base", "../x"])
    document: dict[str, Any] = {"version": 1, "name": "n", "params": {"x": 1}}
    document["stages"] = draw(st.dictionaries(names, stages(), min_size=1, max_size=5))
    rare = draw(st.integers(0, 19))
    if rare == 0:
        document["version"] = draw(scalars)
    elif rare == 1:
        document["name"] = draw(scalars)
    elif rare == 2:
        document["params"] = {"x": "${params.y}", "y": draw(trees)}
    elif rare == 3:
        document[draw(st.sampled_from(WORDS))] = draw(trees)
    if draw(st.booleans()):
        return json.dumps(document).encode()
    return yaml.safe_dump(document, allow_unicode=True).encode()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a spec some of whose bytes are others, gone or doubled."""
    data = draw(documents())
    for _ in range(draw(st.integers(1, 4))):
        at, length = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        data = data[:at] + draw(st.binary(max_size=8) | st.just(data[:at])) + data[at + length :]
    return data


def try_one(data: bytes) -> int:
    """Plan a spec of these bytes as a user would; return the exit code."""
    Path("spec.yaml").write_bytes(data)
    out, err = io.StringIO(), io.StringIO()
    begun = time.process_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["plan", "spec.yaml", "--json"])
    seconds = time.process_time() - begun
    assert code in (0, 1, 2), code
    assert "Traceback" not in err.getvalue()
    assert seconds < MAX_SECONDS, f"{seconds:.2f} s"
    assert code == 0 or err.getvalue().strip(), "a refusal without a word"
    if code == 0:
        json.loads(out.getvalue())
    return code


def memory(which: str) -> int:
    """Return a figure of this process's memory in bytes: ``VmRSS``, or ``VmHWM``, the most so far."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition(f"{which}:")[2].split()[0]) * 1024


def forget_peak() -> None:
    """Let the kernel count the most memory from now on: the fuzzer itself grows, spec by spec."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")


def fuzz(seconds: float) -> dict[str, int]:
    """Try specs for so long; give how many, how many were sound, and the most memory one took."""
    tried = {"specs": 0, "sound": 0, "megabytes": 0}

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(st.binary(max_size=200) | damaged() | documents() | documents())
    def one(data: bytes) -> None:
        forget_peak()
        before = memory("VmRSS")
        tried["specs"] += 1
        tried["sound"] += try_one(data) == 0
        tried["megabytes"] = max(tried["megabytes"], (memory("VmHWM") - before) // 10**6)
        assert tried["megabytes"] < MAX_MEGABYTES, tried

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        one()
    return tried


if __name__ == "__main__":
    os.chdir(sys.argv[2])
    Path("rows.jsonl").write_text('{"instruction": "q", "output": "a"}\n')
    print(json.dumps(fuzz(float(sys.argv[1]))))
