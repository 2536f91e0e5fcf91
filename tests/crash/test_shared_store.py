"""Eight runs at once on one store, from one spec and from several: every stage is made once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from crash.pipeline import HANG_S, Pipeline, digests
from openai_endpoint import Endpoint

pytestmark = pytest.mark.heavy


def test_eight_runs_at_once_make_each_stage_once(
    pipeline: Pipeline, undisturbed: dict[str, Any], teacher: Endpoint
) -> None:
    """Each stage is done by one of the runs, and found by the seven others; no reply is paid twice."""
    before = len(teacher.received)
    processes = [pipeline.start() for _ in range(8)]
    results = [
        json.loads(process.communicate(timeout=HANG_S)[0])["stages"] for process in processes
    ]
    done = Counter(
        name for stages in results for name, stage in stages.items() if stage["status"] == "done"
    )
    assert done == dict.fromkeys(undisturbed, 1)
    assert all(digests(stages) == digests(undisturbed) for stages in results)
    assert Counter(pipeline.trace()) == dict.fromkeys(("seeds", "left", "right", "end"), 1)
    asked = Counter(json.dumps(body, sort_keys=True) for body in teacher.received[before:])
    assert set(asked.values()) == {1}


def test_specs_that_share_a_store_share_what_is_equal(tmp_path: Path, teacher: Endpoint) -> None:
    """Two projects with one LLMPIPE_HOME, run at once, make what they have in common once."""
    home = str(tmp_path / "home")
    pair = [Pipeline(tmp_path / name, teacher.url) for name in ("one", "other")]
    processes = [pipeline.start(LLMPIPE_HOME=home) for pipeline in pair]
    for process in processes:
        out, err = process.communicate(timeout=HANG_S)
        assert json.loads(out)["status"] == "done", err
    assert Counter(pair[0].trace() + pair[1].trace()) == dict.fromkeys(
        ("seeds", "left", "right", "end"), 1
    )
