"""The inner half of a worker: the process in which a stage's own code runs.

It is forked from the worker before anything heavy is imported. Its output goes into the worker's
pipe, its events into another, and its result into a file.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.contracts import StageResult
from llmpipe.errors import LlmpipeError, StageError
from llmpipe.registry import stage_class
from llmpipe.runner.request import StageRequest
from llmpipe.runner.store import Store, write_hint


def execute(request: StageRequest, scratch: Path, events: int) -> int:
    """Run the stage and leave ``result.json`` in ``scratch``; give the exit status.

    ``events`` is a file descriptor that takes one JSON event per line.
    """

    def emit(event: Mapping[str, Any]) -> None:
        os.write(events, (json.dumps(event) + "\n").encode())

    try:
        answer = _answer(_run_stage(request, scratch, emit), scratch / "out")
        status = 0
    except LlmpipeError as error:
        answer, status = {"error": {"message": error.message, "hint": error.hint}}, 1
    except KeyboardInterrupt:
        answer, status = {"error": {"message": "interrupted", "hint": None}}, 130
    except MemoryError:
        answer = {
            "error": {
                "message": "there is not enough memory for this stage",
                "hint": "use smaller batches, shorter sequences or a smaller model",
            }
        }
        status = 1
    except OSError as error:
        traceback.print_exc()
        hint = write_hint(error)
        place = f": {error.filename}" if error.filename else ""
        answer = {"error": {"message": f"{error.strerror or error}{place}", "hint": hint}}
        status = 1
        if error.errno == errno.ENOSPC:
            answer["error"]["message"] = "the disk is full"
    except Exception as error:
        traceback.print_exc()
        answer = {"error": {"message": f"{type(error).__name__}: {error}", "hint": None}}
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        (scratch / "result.json").write_text(json.dumps(answer), "utf-8")
    except OSError:
        return status or 1  # a full disk: the worker says so when it finds no result
    return status


def _run_stage(request: StageRequest, scratch: Path, emit: Any) -> StageResult:
    out, work = scratch / "out", Store(Path(request.home)).work / request.key
    out.mkdir()
    work.mkdir(parents=True, exist_ok=True)
    return stage_class(request.kind).run(request.context(out, work, emit))


def _answer(result: StageResult, out: Path) -> dict[str, Any]:
    """Check that every output exists where it must and give the result as JSON data."""
    outputs = {}
    for name, path in result.outputs.items():
        if not path.resolve().is_relative_to(out.resolve()):
            raise StageError(f"the output {name!r} lies outside the stage's folder: {path}")
        if not path.exists():
            raise StageError(f"the output {name!r} was not made: {path.name} does not exist")
        outputs[name] = str(path.relative_to(out))
    return {"outputs": outputs, "metrics": dict(result.metrics), "summary": result.summary}
