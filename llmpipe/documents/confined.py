"""Convert files in a child process, so that no file can crash the stage.

A file of a few hundred bytes can use gigabytes of memory or crash a library. The child converts one
file after the other and writes each result to a pipe, while this process monitors the child. If a
file uses too much, or its reader crashes, it is refused with the reason, and a new child continues
with the next file. The documents are those that `convert` returns.

Memory is monitored rather than limited by the kernel, because a library that gets no memory may
silently skip what it could not read. Time is processor time, so that other load on the machine does
not decide what is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import itertools
import os
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import msgspec

from llmpipe.documents.convert import Options, convert
from llmpipe.documents.model import Document
from llmpipe.errors import LlmpipeError, MissingDependencyError, StageError
from llmpipe.formats.row import MissingColumnError

NAP = 0.005
"""Seconds between reads of the pipe: waking up for each answer would cost more than converting a
small file."""

NAPS_PER_CHECK = 10
"""How many naps lie between two checks of the child's resource use."""

PATIENCE = 10
"""How much longer in real time than its processor time a file may take, on a slow network."""

LEAST_MEMORY = 0.15
"""The share of the memory limit for the smallest file: 300 MB of 2 GB. Libraries take up to 100 MB,
and XML takes about forty times its size."""

LEAST_SECONDS = 1 / 3
"""The share of the time limit for the smallest file: 40 s of 120 s. Imports take about a second,
and unpacked text may be a hundred times as large as its file."""

MEGABYTE = 1_000_000
"""Size in bytes from which a file may use all of the memory, and proportionally more time."""

RAISED = {error.__name__: error for error in (MissingColumnError, MissingDependencyError)}
"""Errors of `convert` that keep their class; any other becomes a `StageError`."""

PIPE = 1 << 20
"""Bytes of answers that the child may have waiting in the pipe."""

_HEADER = struct.Struct("!QQd")
"""Precedes an answer: its length, and the bytes and seconds that the child has used so far."""

_END_WITH_PARENT = 1
"""PR_SET_PDEATHSIG in linux/prctl.h."""


class Limits(NamedTuple):
    """What converting a file of a megabyte may use: bytes of memory and seconds of processor time.

    Smaller files may use less of both; larger ones the same memory and proportionally more time.
    """

    memory: int = 2_000_000_000
    seconds: float = 120

    def of(self, size: int) -> Limits:
        """Return the limits for a file of ``size`` bytes."""
        share = size / MEGABYTE
        return Limits(
            int(self.memory * min(1, LEAST_MEMORY + (1 - LEAST_MEMORY) * share)),
            self.seconds * max(LEAST_SECONDS, share),
        )


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """The result for a file: its documents and remarks, or why it was refused."""

    documents: tuple[Document, ...] = ()
    remarks: tuple[str, ...] = ()
    refusal: tuple[str, str, str | None] | None = None
    """Class, message and hint of the error."""

    @property
    def error(self) -> LlmpipeError | None:
        """The error that converting the file in this process would have raised."""
        if self.refusal is None:
            return None
        name, message, hint = self.refusal
        return RAISED.get(name, StageError)(message, hint=hint)


_ENCODER, _DECODER = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Answer)


def answers(
    files: Sequence[tuple[str, Path]], options: Options, limits: Limits
) -> Generator[Answer, None, None]:
    """Yield the answer for each file, in order. Closing the iterator ends the child.

    Args:
        files: name in messages and ids, and path, of each file.
        options: how to read the files.
        limits: what converting a file may use.
    """
    done = 0
    while done < len(files):
        child = _Child(files[done:], options)
        try:
            while done < len(files):
                name, path = files[done]
                done += 1
                try:
                    answer = child.answer(_Monitor(child, name, path, limits).check)
                except EOFError:
                    yield _refused(_crash(name, child.end()))
                    break
                except StageError as error:
                    yield _refused(error)
                    break
                yield answer
        finally:
            child.end()


class _Child:
    """A process that converts files until it is killed or has converted all of them."""

    def __init__(self, files: Sequence[tuple[str, Path]], options: Options) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self.had = _usage_of(parent)[0], 0.0
        """Bytes and seconds that it had used when it began with the current file."""
        self._answers, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become_child(files, options, write, parent)
        os.close(write)
        self._rest = bytearray()
        self._status: int | None = None
        os.set_blocking(self._answers, False)
        with contextlib.suppress(OSError):  # the user's pipe limit is reached
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, PIPE)

    def answer(self, check: Callable[[], None]) -> Answer:
        """Return the next answer; ``check`` is called regularly until it arrives.

        Raises:
            EOFError: the child ended without an answer.
        """
        length, *had = _HEADER.unpack(self._read(_HEADER.size, check))
        answer = _DECODER.decode(self._read(length, check))
        self.had = (had[0], had[1])
        return answer

    def end(self) -> int:
        """Kill the child and return its exit status, negative for a signal."""
        if self._status is None:
            os.close(self._answers)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def _read(self, length: int, check: Callable[[], None]) -> bytes:
        while len(self._rest) < length:
            chunk = self._chunk(check)
            if not chunk:
                self._wait()
                raise EOFError
            self._rest += chunk
        taken = bytes(memoryview(self._rest)[:length])
        del self._rest[:length]
        return taken

    def _chunk(self, check: Callable[[], None]) -> bytes:
        for naps in itertools.count(1):
            try:
                return os.read(self._answers, PIPE)
            except BlockingIOError:
                time.sleep(NAP)
            if naps % NAPS_PER_CHECK == 0:
                check()
        raise AssertionError

    def _wait(self) -> None:
        """Wait for a child that has closed its pipe: its exit status says why."""
        self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._answers)


class _Monitor:
    """Checks what a child uses for one file."""

    def __init__(self, child: _Child, name: str, path: Path, limits: Limits) -> None:
        self._child = child
        self._name = name
        self._path = path
        self._limits = limits
        self._checks = 0

    def check(self) -> None:
        """Check that the file has not used too much.

        Raises:
            StageError: it has.
        """
        memory, seconds = _usage_of(self._child.pid)
        memory, seconds = memory - self._child.had[0], seconds - self._child.had[1]
        if self._checks == 0:
            with contextlib.suppress(OSError):
                self._limits = self._limits.of(self._path.stat().st_size)
        self._checks += 1  # count checks, not time: a stopped process must not run out of time
        if memory > self._limits.memory:
            raise StageError(
                f"reading {self._name} takes more than {self._limits.memory / 1e6:,.0f} MB of "
                "memory, the share of `max_memory` for a file of its size",
                hint="split it, leave it out with `exclude`, or raise `max_memory`",
            )
        waited = self._checks * NAP * NAPS_PER_CHECK / PATIENCE
        if max(seconds, waited) > self._limits.seconds:
            raise StageError(
                f"reading {self._name} takes more than {self._limits.seconds:,.3g} s, "
                "the share of `max_seconds` for a file of its size",
                hint="split it, leave it out with `exclude`, or raise `max_seconds`",
            )


def _usage_of(pid: int) -> tuple[int, float]:
    """Return the memory in bytes and processor seconds of a process; zeros if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", errors="replace")
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return 0, 0.0
    lines = (line.split() for line in status.splitlines())
    memory = sum(int(line[1]) << 10 for line in lines if line[0] in ("VmRSS:", "VmSwap:"))
    ticks = sum(map(int, stat.rpartition(")")[2].split()[11:13]))
    return memory, ticks / os.sysconf("SC_CLK_TCK")


def _refused(error: LlmpipeError, remarks: Sequence[str] = ()) -> Answer:
    return Answer((), tuple(remarks), (type(error).__name__, error.message, error.hint))


def _crash(name: str, status: int) -> StageError:
    """Return the error for a file on which the child crashed."""
    how = f"status {status}"
    if status < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-status).name
    killed = ", most often by the kernel when memory runs out" if how == "SIGKILL" else ""
    return StageError(
        f"the process that read {name} ended with {how}{killed}",
        hint="leave it out with `exclude`, or save it again with another program",
    )


def _become_child(
    files: Sequence[tuple[str, Path]], options: Options, answers: int, parent: int
) -> NoReturn:
    """Convert the files in the child process, then exit."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the child
        gc.freeze()  # existing objects are shared with the parent
        _end_with(parent)
        for name, path in files:
            _write(answers, _converted(name, path, options))
        status = 0
    except BrokenPipeError:
        pass  # the parent has ended
    finally:
        os._exit(status)


def _end_with(parent: int) -> None:
    """Ask the kernel to kill this process with its parent, and first when memory runs out."""
    import ctypes

    ctypes.CDLL(None).prctl(_END_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        raise BrokenPipeError
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def _converted(name: str, path: Path, options: Options) -> bytes:
    """Return the answer for one file."""
    remarks: list[str] = []
    try:
        found = Answer(tuple(convert(path, name, options, remarks.append)), tuple(remarks))
        return _ENCODER.encode(found)
    except LlmpipeError as error:
        refused = error
    except BaseException as error:  # libraries raise anything; the other files go on
        traceback.print_exc()
        sys.stderr.flush()
        refused = StageError(
            f"{name} cannot be read: {type(error).__name__}: {error}",
            hint="leave it out with `exclude`; the log shows where its reader failed",
        )
    return _ENCODER.encode(_refused(refused, remarks))


def _write(descriptor: int, answer: bytes) -> None:
    had = _usage_of(os.getpid())[0]  # memory that was freed still counts for the process
    left = memoryview(_HEADER.pack(len(answer), had, time.process_time()) + answer)
    while left:
        left = left[os.write(descriptor, left) :]
