"""The servers under load: `llmpipe serve`, the bare engine, and llama-cpp-python's own server.

Each has all cores to itself while it is asked, and serves the same file with the same threads and
the same context for a conversation. llama-cpp-python answers one request at a time.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.serve.load import Load, Stormed, storm
from llmpipe.backends.llama_cpp.serve import serve_gguf

NAME = "chat"
KEY = "benchmark"
START = 300.0
"""The maximum seconds until a server listens."""
PEER_NEEDS = ("llama_cpp", "sse_starlette", "starlette_context", "pydantic_settings", "fastapi")
"""The modules of ``llama-cpp-python[server]``."""
SPEC = """\
version: 1
name: benchmark
stages:
  {name}:
    {{kind: serve, model: "{model}", slots: {slots}, threads: {threads}, context: {context}}}
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all servers serve, and how."""

    model: Path
    threads: int
    context: int
    """Tokens of one conversation."""
    slots: int
    """Conversations at once, for servers that can."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server answers."""

    url: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare."""

    name: str
    serve: Callable[[Setting], AbstractContextManager[Address]]

    def under(self, setting: Setting, load: Load) -> Stormed:
        """Start it, warm it up with one request, put the load on it and stop it.

        Raises:
            SystemExit: it does not answer the first request, so there is nothing to compare.
        """
        with self.serve(setting) as at:
            failures = storm(at.url, NAME, at.key, Load(1, 1, 4)).failures()
            if failures:
                raise SystemExit(f"{self.name} fails at its first request: {next(iter(failures))}")
            return storm(at.url, NAME, at.key, load)


def missing_peer() -> list[str]:
    """Return the modules that llama-cpp-python's server lacks here."""
    return [name for name in PEER_NEEDS if find_spec(name) is None]


@contextmanager
def llmpipe_serve(setting: Setting) -> Iterator[Address]:
    """Run ``llmpipe serve`` as its users do, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "spec.yaml"
        spec.write_text(
            SPEC.format(
                name=NAME, model=setting.model, slots=setting.slots, threads=setting.threads,
                context=setting.context,
            )
        )  # fmt: skip
        command = [sys.executable, "-m", "llmpipe", "serve", os.fspath(spec), NAME, "--port", "0"]
        process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        with _ending(process):
            line = process.stderr.readline()
            assert line.startswith("serving on "), line + process.stderr.read()
            yield Address(line.split()[2])


@contextmanager
def bare_engine(setting: Setting) -> Iterator[Address]:
    """Serve with llama.cpp's server alone, with its own batch and prompt cache."""
    with serve_gguf(
        setting.model, threads=setting.threads, context=setting.context, slots=setting.slots,
        alias=NAME, api_key=KEY, cache_prompt=True,
    ) as server:  # fmt: skip
        yield Address(server.url, KEY)


def llama_cpp_python(*options: str) -> Callable[[Setting], AbstractContextManager[Address]]:
    """Return a starter of llama-cpp-python's server with these options beside the setting."""

    @contextmanager
    def serve(setting: Setting) -> Iterator[Address]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        threads = str(setting.threads)
        command = [
            sys.executable, "-m", "llama_cpp.server", "--model", os.fspath(setting.model),
            "--model_alias", NAME, "--n_ctx", str(setting.context), "--n_threads", threads,
            "--n_threads_batch", threads, "--logits_all", "False", "--verbose", "False",
            "--host", "127.0.0.1", "--port", str(port), *options,
        ]  # fmt: skip
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
            with _ending(process):
                _wait_for(port, process, log.fileno())
                yield Address(f"http://127.0.0.1:{port}")

    return serve


PEER = Peer("llama-cpp-python, --interrupt_requests False",
            llama_cpp_python("--interrupt_requests", "False"))  # fmt: skip
"""Its server as it finishes every stream."""
PEER_AS_IT_IS = Peer("llama-cpp-python, its defaults", llama_cpp_python())
"""Its server with its default: a new request ends the stream in progress."""
LLMPIPE = Peer("llmpipe serve", llmpipe_serve)
BARE = Peer("the bare engine", bare_engine)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: int) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = Path(f"/proc/self/fd/{log}").read_bytes()[-2000:].decode("utf-8", "replace")
            raise SystemExit(f"llama-cpp-python's server ended: {said}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit(f"llama-cpp-python's server does not listen after {START:.0f} s")


@contextmanager
def _ending(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stderr is not None:
            process.stderr.close()
