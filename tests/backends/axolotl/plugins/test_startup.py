"""Rows are saved by the process that prepared them, where one process is enough."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy


def test_one_process_is_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No other is started, the files are the same, and several are several all the same."""
    pytest.importorskip("axolotl.integrations.base")
    from datasets import Dataset

    from llmpipe.backends.axolotl.plugins.axolotl_startup import save_in_this_process

    rows = Dataset.from_dict({"input_ids": [[1, 2], [3]], "labels": [[-100, 2], [3]]})
    rows.save_to_disk(tmp_path / "before", num_proc=1)
    monkeypatch.setattr(Dataset, "save_to_disk", Dataset.save_to_disk)  # put back at the end
    save_in_this_process()
    monkeypatch.setattr(os, "posix_spawn", None)
    monkeypatch.setattr("multiprocess.popen_spawn_posix.Popen", None)
    rows.save_to_disk(tmp_path / "after", num_proc=1)
    with pytest.raises(TypeError):
        rows.save_to_disk(tmp_path / "two", num_proc=2)
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        for name in ("before", "after")
    ]
    assert files[0].keys() == files[1].keys()
    arrow = [name for name in files[0] if name.endswith(".arrow")]
    assert arrow
    assert all(files[0][name] == files[1][name] for name in arrow)
