"""Try reward functions on the first rows of a data set, without Axolotl and without a model.

``python -m axolotl_rewards ROWS.parquet RESULT.json module.function …`` writes for every function
what went wrong, or null.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from . import FIELDS, RewardError, checked, column_names, load, trial_arguments

ROWS = 3
ANSWERS = ("This is a trial: 42.", "")
"""A model may also write nothing."""


def main(data: str, result: str, *names: str) -> None:
    """Try every function and write the result."""
    file = pq.ParquetFile(data)
    rows = next(file.iter_batches(batch_size=ROWS)).to_pylist()
    columns = column_names(file.read([FIELDS])[FIELDS].to_pylist())
    failures = [_failure(name, rows, columns) for name in names]
    Path(result).write_text(json.dumps(failures), "utf-8")


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
