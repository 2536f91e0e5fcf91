"""The process in which a stage's own code runs.

It is forked from the worker, which has imported what workers need, or what several stages share. It
has three pipes to the worker: for its output, for its events, and for its answer at the end.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmpipe.contracts.checks import number_complaint, result_complaint
from llmpipe.errors import LlmpipeError, StageError, foreign_text
from llmpipe.registry import stage_class
from llmpipe.runner.disk import write_hint, writing
from llmpipe.runner.request import StageRequest
from llmpipe.runner.store import Store
from llmpipe.runner.trees import take_over


def execute(request: StageRequest, scratch: Path, events: int, answer: int) -> int:
    """Run the stage in ``scratch``; return the exit status.

    ``events`` is a file descriptor for one JSON event per line, ``answer`` one for the outputs of
    the stage or its error, as JSON.
    """

    def emit(event: Mapping[str, Any]) -> None:
        os.write(events, (json.dumps(event) + "\n").encode())

    try:
        result, out = _run_stage(request, scratch, emit), scratch / "out"
        found = _answer(request, result, out)
        if wrong := number_complaint(result.metrics):
            emit({"event": "warning", "message": f"{wrong}: null is stored"})
        status = 0
    except LlmpipeError as error:
        found, status = {"error": {"message": error.message, "hint": error.hint}}, 1
    except KeyboardInterrupt:
        found, status = {"error": {"message": "interrupted", "hint": None}}, 130
    except MemoryError:
        found = {
            "error": {
                "message": "there is not enough memory for this stage",
                "hint": "use smaller batches, shorter sequences or a smaller model",
            }
        }
        status = 1
    except OSError as error:
        found, status = {"error": _refusal(error)}, 1
    except Exception as error:
        traceback.print_exc()
        message, hint = foreign_text(error) or (f"{type(error).__name__}: {error}", None)
        found = {"error": {"message": message, "hint": hint}}
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    with open(answer, "w", encoding="utf-8") as stream:
        json.dump(found, stream)
    return status


def _refusal(error: OSError) -> dict[str, Any]:
    """Return what the operating system refused, and a hint: the log, unless the remedy is known."""
    hint = write_hint(error)
    if hint is None:
        traceback.print_exc()
    place = f": {error.filename}" if error.filename else ""
    full = error.errno == errno.ENOSPC
    message = "the disk is full" if full else f"{error.strerror or error}{place}"
    return {"message": message, "hint": hint}


def _run_stage(request: StageRequest, scratch: Path, emit: Any) -> Any:
    out, store = scratch / "out", Store(Path(request.home))
    work = store.work / request.key
    out.mkdir()
    with writing(store.home):
        work.mkdir(parents=True, exist_ok=True)
    return stage_class(request.kind).run(request.context(out, work, emit, store))


def _answer(request: StageRequest, result: Any, out: Path) -> dict[str, Any]:
    """Check what the stage returned; return the answer as JSON data.

    Raises:
        StageError: It is not what the contract asks for.
    """
    if wrong := result_complaint(result, request.outputs, out):
        run = inspect.unwrap(stage_class(request.kind).run)
        place = f"{inspect.getsourcefile(run)}:{run.__code__.co_firstlineno}"
        raise StageError(wrong, hint=f"correct run of the kind {request.kind}: {place}")
    outputs = {}
    for name, path in result.outputs.items():
        take_over(path, name)
        outputs[name] = str(path.relative_to(out))
    return {"outputs": outputs, "metrics": dict(result.metrics), "summary": result.summary}
