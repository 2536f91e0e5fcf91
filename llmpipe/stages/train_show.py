"""Show how the first rows of a ``train`` stage are rendered, and which of their tokens train.

The stage's own configuration is compiled for these rows, and the installed Axolotl prepares them in
a child process. No model is loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from llmpipe.backends.axolotl import training as axolotl
from llmpipe.backends.axolotl.config import to_yaml
from llmpipe.contracts import StageContext
from llmpipe.errors import StageError
from llmpipe.stages.train_compile import Layout, compile_stage, is_offline, launch_of
from llmpipe.stages.train_config import TrainConfig

_OURS = ("test_datasets", "eval_steps", "evals_per_epoch", "eval_strategy", "sample_packing")
"""Keys that do not matter for the rows to be shown."""

SECONDS = 600.0
"""How long Axolotl may take; half a minute of it goes by until it is imported."""


def show_rows(ctx: StageContext[TrainConfig], count: int) -> list[str]:
    """Return the first rows as Axolotl tokenizes them, what is trained between ⟦ and ⟧.

    A preference row gives a text for each of its answers.

    Raises:
        StageError: a row cannot be read, or Axolotl does not prepare them.
    """
    compiled = compile_stage(ctx, Layout(ctx.work))
    for note in compiled.notes:
        ctx.warn(note)
    kept = _keep_first(ctx.work / "data" / "train.parquet", count)
    settings = {key: value for key, value in compiled.config.items() if key not in _OURS}
    settings |= {"shuffle_merged_datasets": False, "dataset_num_proc": 1}
    file, result = ctx.work / "axolotl.yml", ctx.work / "shown.json"
    file.write_text(to_yaml(settings, header="Rows to be shown."), "utf-8")
    launch = launch_of(ctx, reveal=True)
    env = axolotl.environment(
        launch, threads=ctx.threads, work=ctx.work, offline=is_offline(settings)
    )
    command = [sys.executable, "-m", "axolotl_labels.show", str(file), str(result)]
    with (ctx.work / "show.log").open("w+", encoding="utf-8", errors="replace") as log:
        _run(command, ctx.work, {**os.environ, **env}, log)
        log.seek(0)
        told = [line for line in log.read().splitlines() if line.strip()]
    try:
        texts: list[str] = json.loads(result.read_text("utf-8"))
    except (OSError, ValueError):
        last = "\n".join(told[-5:])
        raise StageError(f"Axolotl does not prepare the rows:\n{last}") from None
    for line in axolotl.dropped_rows(told):
        ctx.warn(f"of the first {kept} rows: {line}")
    return texts


def _run(command: list[str], folder: Path, env: Mapping[str, str], log: IO[str]) -> None:
    """Run a command to its end, or until the time is up; nothing that it started stays behind.

    Raises:
        StageError: the time is up.
    """
    group = subprocess.Popen(  # a session of its own: Axolotl starts processes, too
        command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
    )
    try:
        group.wait(SECONDS)
    except subprocess.TimeoutExpired:
        raise StageError(
            f"Axolotl did not prepare the rows within {SECONDS:g} s",
            hint="show fewer rows with --rows; if the hub is slow, download the tokenizer before",
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group.pid, signal.SIGKILL)
        group.wait()


def _keep_first(file: Path, count: int) -> int:
    """Leave only the first rows in a Parquet file; return their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as rows:
        first = next(rows.iter_batches(batch_size=min(count, rows.metadata.num_rows)))
    table = pa.Table.from_batches([first])
    pq.write_table(table, file)
    return int(table.num_rows)
