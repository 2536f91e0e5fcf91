"""The worker: one process per stage that runs it, watches it and publishes what it made.

Forked by the fork server, it holds the key's lock, forks the process that runs the stage, passes
its log through a filter that takes secrets out, and puts the outputs into the store. It goes on
when its head dies: what it finishes is there for the next run. Its standard output is one JSON
event per line.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import selectors
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from llmpipe.contracts import SECRET
from llmpipe.errors import LlmpipeError, StageError
from llmpipe.runner.execute import execute
from llmpipe.runner.process import identity, is_alive, kill_leftovers
from llmpipe.runner.remote import Remote
from llmpipe.runner.request import StageRequest
from llmpipe.runner.store import KeyRecord, Store, write_hint

WELL_KNOWN_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY")
"""Environment variables that are redacted even where no spec names them."""

REDACTED = b"[redacted]"

LOCK_PAUSES = (0.01, 0.25)
"""Seconds between two looks at a lock that somebody else holds: at first, and in the end."""


def work_on(request: StageRequest) -> int:
    """Bring the requested stage about; give the exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    store = Store(Path(request.home))
    try:
        with store.in_use(), _locked(store, request.key) as waited:
            if (waited or not request.force) and _finished(store, request.key):
                _emit({"event": "finished", "status": "cached"})
                return 0
            if request.remote and not request.force and _fetched(request, store):
                _emit({"event": "fetched", "remote": request.remote})
                _emit({"event": "finished", "status": "cached"})
                return 0
            return _work(request, store)
    except LlmpipeError as error:
        _emit_failure(error.message, error.hint)
        return error.exit_code
    except OSError as error:
        message = f"{store.home} cannot be used: {error.strerror or error}"
        _emit_failure(message, write_hint(error))
        return 1


def _fetched(request: StageRequest, store: Store) -> bool:
    """Look into the remote store, in a process of its own: its clients start threads.

    One that cannot be reached or is damaged is said, and costs no more than the work.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _fetch(request, store)
        finally:
            os._exit(status)
    return _exit_status(os.waitpid(child, 0)[1]) == 0


def _fetch(request: StageRequest, store: Store) -> int:
    done = 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        _emit({"event": "progress", "done": done, "total": None, "note": "bytes fetched"})

    _on_interrupt(signal.SIG_DFL)
    assert request.remote is not None
    try:
        return 0 if Remote(request.remote).fetch(request.key, store, count) else 1
    except LlmpipeError as error:
        _emit({"event": "warning", "message": error.message})
        return 1


def _work(request: StageRequest, store: Store) -> int:
    begun = time.monotonic()
    scratch = store.tmp / f"{request.key[:16]}-{os.getpid()}"
    scratch.mkdir(parents=True)
    try:
        status = _supervise(request, scratch)
        answer = _read_answer(scratch, status)
        if "error" in answer:
            _emit_failure(answer["error"]["message"], answer["error"]["hint"], status)
            return status or 1
        record = _publish(request, store, scratch, answer, time.monotonic() - begun)
        shutil.rmtree(store.work / request.key, ignore_errors=True)
        _emit({"event": "finished", "status": "done", "seconds": record.seconds})
        return 0
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _supervise(request: StageRequest, scratch: Path) -> int:
    """Fork the stage's process, carry its log and events, and give its exit status."""
    log_read, log_write = os.pipe()
    events_read, events_write = os.pipe()
    child = os.fork()
    if child == 0:
        _become_stage(request, scratch, log_write, events_write)
    os.close(log_write)
    os.close(events_write)
    secrets = _secret_values(request)
    with Path(request.log).open("ab", buffering=0) as log:
        return _carry(child, log_read, events_read, log, secrets)


def _become_stage(request: StageRequest, scratch: Path, log: int, events: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 1
    try:
        status = execute(request, scratch, events)
    finally:
        os._exit(status)


def _carry(child: int, log_read: int, events_read: int, log: BinaryIO, secrets: list[bytes]) -> int:
    """Copy log lines and events until the child is gone and its pipes are empty."""
    rest = {log_read: b"", events_read: b""}
    status: int | None = None
    with selectors.DefaultSelector() as selector:
        for descriptor in rest:
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        while True:
            ready = selector.select(timeout=0.2 if status is None else 0)
            if status is not None and not ready:
                break
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fd)
                    continue
                *lines, rest[key.fd] = (rest[key.fd] + chunk).split(b"\n")
                for line in lines:
                    _pass_on(line + b"\n", key.fd == log_read, log, secrets)
            if status is None:
                done, raw = os.waitpid(child, os.WNOHANG)
                status = _exit_status(raw) if done else None
            if not selector.get_map() and status is None:
                status = _exit_status(os.waitpid(child, 0)[1])
    if rest[log_read]:
        _pass_on(rest[log_read] + b"\n", True, log, secrets)
    os.close(log_read)
    os.close(events_read)
    return status


def _pass_on(line: bytes, is_log: bool, log: BinaryIO, secrets: list[bytes]) -> None:
    for secret in secrets:
        line = line.replace(secret, REDACTED)
    if is_log:
        with contextlib.suppress(OSError):  # a full disk must not stop a stage that could go on
            log.write(line)
        text = line.decode("utf-8", "replace").rstrip()
        if text:
            _emit({"event": "log", "line": text[-400:]})
    else:
        _write_event(line)


def _publish(
    request: StageRequest, store: Store, scratch: Path, answer: dict[str, Any], seconds: float
) -> KeyRecord:
    """Put every output into the store, then the key's record: from then on the stage is done."""
    absent = request.outputs.keys() - answer["outputs"].keys()
    if absent:
        raise StageError(f"the stage ended without its output {', '.join(sorted(absent))}")
    outputs = {
        name: store.put(scratch / "out" / answer["outputs"][name], type_)
        for name, type_ in request.outputs.items()
    }
    record = KeyRecord(
        key=request.key,
        kind=request.kind,
        ingredients=request.made_of,
        outputs=outputs,
        metrics=answer["metrics"],
        summary=answer["summary"],
        seconds=round(seconds, 3),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    store.save(record)
    return record


def _read_answer(scratch: Path, status: int) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads((scratch / "result.json").read_bytes())
    except (OSError, ValueError):
        hint = None
        if status == -signal.SIGKILL:
            hint = "something killed it: most often the kernel, when memory runs out"
        ended = f"signal {-status}" if status < 0 else f"status {status}"
        return {"error": {"message": f"the stage's process ended with {ended}", "hint": hint}}
    return answer


@contextlib.contextmanager
def _locked(store: Store, key: str) -> Iterator[bool]:
    """Hold the key's lock; give whether another process had to be waited for.

    The lock is inherited by the stage's process, so that it holds as long as anything works on
    the key. What a worker that was killed has left running is ended first.
    """
    descriptor = os.open(store.locks / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _on_interrupt(signal.SIG_DFL)  # who waits may be stopped at any time
        waited = _wait_for_lock(descriptor)
        _on_interrupt(signal.SIG_IGN)  # who works is stopped through its stage
        owner = _read_owner(descriptor)
        if owner:  # it ended without wiping its name: killed
            kill_leftovers(owner)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(identity()).encode(), 0)
        yield waited
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int) -> bool:
    """Take the lock; give whether somebody else had it first."""
    waited, pause = False, LOCK_PAUSES[0]
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _read_owner(descriptor)
            if owner and not is_alive(owner):
                kill_leftovers(owner)
            elif owner and not waited:
                waited = True
                _emit({"event": "waiting", "owner": owner})
            time.sleep(pause)
            pause = min(2 * pause, LOCK_PAUSES[1])
        else:
            return waited


def _on_interrupt(action: signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, action)


def _read_owner(descriptor: int) -> dict[str, Any] | None:
    try:
        owner: dict[str, Any] = json.loads(os.pread(descriptor, 1000, 0))
    except ValueError:
        return None  # nobody's, or just being written
    return owner


def _finished(store: Store, key: str) -> bool:
    record = store.record(key)
    return record is not None and not store.missing(record)


def _secret_values(request: StageRequest) -> list[bytes]:
    """Give the values that must not reach the log, longest first."""
    names = {*WELL_KNOWN_SECRETS, *re.findall(SECRET, json.dumps(request.config))}
    values = {os.environ.get(name, "").encode() for name in names}
    return sorted((value for value in values if len(value) >= 4), key=len, reverse=True)


def _exit_status(raw: int) -> int:
    return os.waitstatus_to_exitcode(raw)


def _emit_failure(message: str, hint: str | None, status: int = 1) -> None:
    outcome = "interrupted" if status == 130 else "failed"
    _emit({"event": "finished", "status": outcome, "error": {"message": message, "hint": hint}})


def _emit(event: Mapping[str, Any]) -> None:
    _write_event(json.dumps(event).encode() + b"\n")


def _write_event(line: bytes) -> None:
    with contextlib.suppress(OSError):  # the head may be gone; the work goes on
        os.write(1, line)
