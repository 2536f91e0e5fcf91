"""Try reward functions on the first rows of a data set, without Axolotl and without a model.

``python -m axolotl_rewards ROWS.parquet RESULT.json SECONDS module.function …`` writes for every
function what went wrong, or null. A function that does not return in that time went wrong.
"""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import json
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from . import FIELDS, RewardError, checked, column_names, load, trial_arguments

ROWS = 3
ANSWERS = ("This is a trial: 42.", "")
"""A model may also write nothing."""
PATIENCE = 20
"""Seconds that a function has to end after it was interrupted."""


def main(data: str, result: str, seconds: str, *names: str) -> None:
    """Try every function and write the result."""
    file = pq.ParquetFile(data)
    rows = next(file.iter_batches(batch_size=ROWS)).to_pylist()
    columns = column_names(file.read([FIELDS])[FIELDS].to_pylist())
    failures = []
    for name in names:
        with _limit(float(seconds)):
            failures.append(_failure(name, rows, columns))
    Path(result).write_text(json.dumps(failures), "utf-8")


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Interrupt the block after a time; end the process where Python cannot be interrupted."""

    def interrupt(*_: object) -> None:
        raise TimeoutError(f"it did not return within {seconds:g} s")

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    faulthandler.dump_traceback_later(seconds + PATIENCE, exit=True)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()


def _failure(
    name: str, rows: list[dict[str, Any]], columns: Sequence[str]
) -> dict[str, Any] | None:
    """Return a function's error and the line of its file, or None."""
    try:
        function = checked(load(name), columns)
        rewards = function(**trial_arguments(rows, ANSWERS))
        if inspect.iscoroutine(rewards):
            asyncio.run(rewards)
    except RewardError as error:
        return {"error": str(error), "line": None}
    except SyntaxError as error:
        return {"error": f"SyntaxError: {error.msg}", "line": error.lineno}
    except (Exception, SystemExit) as error:  # the function is the user's and may fail in any way
        module = name.rpartition(".")[0]
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).stem == module]
        return {"error": f"{type(error).__name__}: {error}", "line": lines[-1] if lines else None}
    return None


if __name__ == "__main__":
    main(*sys.argv[1:])
