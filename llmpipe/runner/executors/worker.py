"""The worker: a process that makes one stage, once.

Forked by the fork server, it takes the lease on the stage's key. It checks whether the stage has
been made in the meantime, here or in the remote store; if not, it runs the stage and stores its
outputs. It continues if its head dies: the next run finds the result. Its standard output has one
JSON event per line.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmpipe.errors import LlmpipeError, StageError
from llmpipe.runner.disk import room_hint, write_hint
from llmpipe.runner.executors.supervise import emit, supervise
from llmpipe.runner.lease import Lease, Owner, hold
from llmpipe.runner.occupancy import told
from llmpipe.runner.process import identity, is_alive, kill_leftovers
from llmpipe.runner.records import KeyRecord
from llmpipe.runner.remote import Remote
from llmpipe.runner.request import StageRequest
from llmpipe.runner.statcache import StatCache
from llmpipe.runner.store import Store
from llmpipe.runner.trees import discard


def work_on(request: StageRequest) -> int:
    """Make the requested stage; return the exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    store = Store(Path(request.home))
    try:
        with store.in_use(), _tidy(request), _leased(store, request) as lease:
            if (lease.waited or not request.force) and _finished(store, request):
                emit({"event": "finished", "status": "cached"})
                return 0
            if request.remote and not request.force:
                status = _fetch_apart(request, store)
                if status == 0:
                    emit({"event": "fetched", "remote": request.remote})
                    emit({"event": "finished", "status": "cached"})
                    return 0
                if status in (-signal.SIGINT, -signal.SIGTERM):
                    _emit_failure("interrupted", None, 130)
                    return 130
            return _work(request, store, lease)
    except LlmpipeError as error:
        _emit_failure(error.message, error.hint)
        return error.exit_code
    except OSError as error:
        message = f"{store.home} cannot be used: {error.strerror or error}"
        _emit_failure(message, write_hint(error))
        return 1


def _fetch_apart(request: StageRequest, store: Store) -> int:
    """Look in the remote store, in a child process, because its clients start threads.

    The exit status is 0 if the artifacts were there. A store that is unreachable or damaged is
    reported, and the stage runs.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _fetch(request, store)
        except Exception as error:
            _warn(f"{request.remote} cannot be used: {type(error).__name__}: {error}", None)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _fetch(request: StageRequest, store: Store) -> int:
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        emit({"event": "progress", "done": done, "total": None, "note": "bytes fetched"})

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    assert request.remote is not None
    try:
        remote = Remote(request.remote)
        remote.reach()
    except LlmpipeError as error:
        _warn(error.message, error.hint, "unreachable")
        return 1
    try:
        types = {name: request.outputs[name] for name in request.required}
        return 0 if remote.fetch(request.key, types, store, count) else 1
    except LlmpipeError as error:
        _warn(error.message, error.hint)
        return 1


def _warn(message: str, hint: str | None, event: str = "warning") -> None:
    emit({"event": event, "message": f"{message} ({hint})" if hint else message})


def _leased(store: Store, request: StageRequest) -> AbstractContextManager[Lease]:
    def wait(owner: Owner) -> None:
        emit({"event": "waiting", "owner": told(owner)})

    about = {"stage": request.stage, "head": request.head}
    return hold(store.locks, store.leases, request.key, about, wait)


def _work(request: StageRequest, store: Store, lease: Lease) -> int:
    emit({"event": "working"})
    begun = time.monotonic()
    _check_inputs(request, store)
    scratch = store.tmp / f"{request.key[:16]}-{os.getpid()}"
    scratch.mkdir(parents=True)
    try:
        status, answer = supervise(request, scratch)
        if "error" in answer:
            error = answer["error"]
            _emit_failure(error["message"], error["hint"] or room_hint(store.home), status)
            return status or 1
        _check_inputs(request, store)
        if lease.lost and _finished(store, request):
            _warn("another machine has made it as well, because this one did not respond", None)
            emit({"event": "finished", "status": "cached"})
            return 0
        emit({"event": "publishing"})
        record = _publish(request, store, scratch, answer, time.monotonic() - begun)
        discard(store.work / request.key)
        emit({"event": "finished", "status": "done", "seconds": record.seconds})
        return 0
    finally:
        discard(scratch)


def _check_inputs(request: StageRequest, store: Store) -> None:
    """Check that the user's files still have the content that the key stands for.

    Raises:
        StageError: One of them has changed.
    """
    watched = [item for item in request.all_inputs() if item.path is not None]
    if not watched:
        return
    with contextlib.closing(StatCache(store.statcache)) as cache:
        for item in watched:
            assert item.path is not None
            if cache.digest(Path(item.path), item.pattern) != item.digest:
                raise StageError(
                    f"{item.label} changed while the stage waited or ran",
                    hint="run again to use its current content",
                )


def _publish(
    request: StageRequest, store: Store, scratch: Path, answer: dict[str, Any], seconds: float
) -> KeyRecord:
    """Store every output, then the record of the key, which completes the stage."""
    outputs = {
        name: store.put(scratch / "out" / answer["outputs"][name], type_)
        for name, type_ in request.outputs.items()
    }
    record = KeyRecord(
        key=request.key,
        kind=request.kind,
        ingredients=request.key_inputs,
        outputs=outputs,
        metrics=answer["metrics"],
        summary=answer["summary"],
        seconds=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        read=request.sizes,
    )
    store.save(record)
    return record


@contextlib.contextmanager
def _tidy(request: StageRequest) -> Iterator[None]:
    """End what the stage left running, if the head is not there to do it."""
    try:
        yield
    finally:
        if request.head is not None and not is_alive(request.head):
            kill_leftovers(identity())


def _finished(store: Store, request: StageRequest) -> bool:
    record = store.record(request.key)
    return record is not None and not store.missing(record, request.required)


def _emit_failure(message: str, hint: str | None, status: int = 1) -> None:
    outcome = "interrupted" if status == 130 else "failed"
    emit({"event": "finished", "status": outcome, "error": {"message": message, "hint": hint}})
