"""Serve a GGUF with llama.cpp, or a model folder with transformers, in a subprocess.

`serve_gguf` starts the engine's script, waits until the model is loaded, verifies that the server
at the address is the subprocess just started, and stops it at the end. The subprocess is in our
process group and ends with us, even on ``kill -9``. `llmpipe.backends.llama_cpp.client` calls it.

A chat template is rendered with its own defaults, as in transformers. llama.cpp would switch
thinking on for every template that has a switch for it.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from llmpipe.backends.binding import cannot_listen, reachable_url
from llmpipe.backends.llama_cpp.client import Limits, LlamaServer, exit_text
from llmpipe.backends.llama_cpp.engines import ENGINES, Engine, EngineName, require_installed
from llmpipe.backends.llama_cpp.template_defaults import thinks_only_on_request
from llmpipe.backends.reasoning import TAG_TEXTS
from llmpipe.errors import StageError

BATCH = 2048
"""llama.cpp's default number of prompt tokens that are computed at once."""

WARNINGS, EVERY_REQUEST = 2, 3
"""How much llama.cpp logs. A log kept only for errors must not grow with every request."""

WAITING = {"GOMP_SPINCOUNT": "1000"}
"""How llama.cpp's threads wait for one another, many times a token: they spin for microseconds,
then sleep. By default they spin for milliseconds, and if other programs use the cores, they block
the very thread that they wait for. Replies do not depend on it."""

START_TIMEOUT = 600.0
"""The maximum seconds for loading a model."""


@contextmanager
def serve_gguf(
    model: Path,
    *,
    threads: int,
    context: int = 2048,
    slots: int = 1,
    host: str = "127.0.0.1",
    port: int = 0,
    alias: str | None = None,
    log: Path | None = None,
    api_key: str | None = None,
    cache_prompt: bool = False,
    batch: int = BATCH,
    slots_folder: Path | None = None,
    engine: EngineName = "xllamacpp",
    adapters: Sequence[Path] = (),
) -> Iterator[LlamaServer]:
    """Serve ``model`` during the block.

    Args:
        model: The GGUF file, or the folder for the engine transformers.
        threads: The number of CPU threads.
        context: The maximum tokens of one conversation, prompt and reply together.
        slots: The number of conversations that are answered at the same time; each has its own
            context.
        host: The address to bind.
        port: The port to bind; 0 lets the system choose a free one.
        alias: The model's name in the API; by default the file's name without its suffix.
        log: A file to append llama.cpp's log to; by default it is kept only for errors.
        api_key: The key that callers must send as a bearer token. By default only the
            `LlamaServer` knows it, so pages of other sites and other programs get no answer.
        cache_prompt: Whether to reuse the computed prefix that a prompt shares with the slot's last
            one. This is faster, but replies may depend on earlier requests.
        batch: The number of prompt tokens that are computed at once. The server notices a
            disconnect only between two batches.
        slots_folder: The folder in which `llmpipe.backends.llama_cpp.prefixes` saves prompt
            prefixes.
        engine: The engine to serve with.
        adapters: GGUF files of LoRA adapters for this model. A request names them by their number.

    Raises:
        MissingDependencyError: The engine is not installed.
        StageError: The engine cannot load the model, the port is in use, or another process answers
            instead of the server.
    """
    with_engine = ENGINES[engine]
    require_installed(with_engine)
    api_key = api_key or secrets.token_hex(16)
    settings: dict[str, Any] = {
        # A link keeps its name, because llama.cpp finds the parts of a split GGUF by it.
        "model": os.fspath(model.parent.resolve() / model.name),
        "threads": threads,
        "context": context,
        "slots": slots,
        "host": host,
        "port": port,
        "alias": alias or model.stem,
        "tag": secrets.token_hex(16),
        "api_keys": [api_key],
        "cache_prompt": cache_prompt,
        "batch": max(batch, slots),
        "slots_folder": f"{slots_folder}/" if slots_folder else "",
        "verbosity": EVERY_REQUEST if log else WARNINGS,
        "thinking": True,
        "preserved": list(TAG_TEXTS),
        "adapters": [os.fspath(adapter.resolve()) for adapter in adapters],
    }
    with _open_log(log) as log_file, ExitStack() as stack:
        server = stack.enter_context(_started(with_engine, settings, log_file, api_key))
        if with_engine.thinks_unasked and thinks_only_on_request(server.template()):
            stack.close()  # the setting only applies at the start
            settings["thinking"] = False
            server = stack.enter_context(_started(with_engine, settings, log_file, api_key))
        yield server


@contextmanager
def _started(
    engine: Engine, settings: Mapping[str, Any], log: IO[bytes], api_key: str
) -> Iterator[LlamaServer]:
    """Start a server with these settings; it is verified and ready when the block begins."""
    with _child(engine.script, log) as process:
        limits = Limits(
            settings["context"], settings["slots"], settings["threads"]
        )  # until it says
        server = LlamaServer("", settings["alias"], process, log, limits, api_key, engine.name)
        address = _wait_until_loaded(server, settings)
        port = int(address.rpartition(":")[2].strip("/"))
        server.url = reachable_url(settings["host"], port)
        server.check_identity(settings["tag"])
        props = server.props()
        context = props["default_generation_settings"]["n_ctx"]
        server.limits = Limits(context, props["total_slots"], settings["threads"])
        if server.limits.slots != settings["slots"]:
            slots = f"{server.limits.slots} slots, not {settings['slots']}"
            raise StageError(f"{settings['alias']} is served with {slots}")
        yield server


@contextmanager
def _open_log(log: Path | None) -> Iterator[IO[bytes]]:
    with log.open("ab") if log else tempfile.TemporaryFile() as file:
        yield file


@contextmanager
def _child(script: Path, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the server's process, and end it by closing its standard input."""
    process = subprocess.Popen(
        # -P: the script's folder has modules with the names of the libraries that they wrap.
        [sys.executable, "-P", os.fspath(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**WAITING, **os.environ},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
    finally:
        try:
            process.stdin.close()
        except OSError:
            pass  # it died before it read its settings
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _wait_until_loaded(server: LlamaServer, settings: Mapping[str, Any]) -> str:
    process = server.process
    assert process.stdin is not None
    assert process.stdout is not None
    model = settings["model"]
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
    except OSError:
        pass  # the child is dead; the empty answer below says so
    deadline = time.monotonic() + START_TIMEOUT
    while not select.select([process.stdout], [], [], 1.0)[0]:
        if time.monotonic() > deadline:
            raise StageError(
                f"{model} was not loaded within {START_TIMEOUT:.0f} s", hint=server.log_tail()
            )
    line = process.stdout.readline()
    answer = json.loads(line) if line else {"error": exit_text(process.wait())}
    if "error" in answer:
        raise _start_error(server, settings, answer["error"])
    return str(answer["address"])


def _start_error(server: LlamaServer, settings: Mapping[str, Any], reason: str) -> StageError:
    host, port = settings["host"], settings["port"]
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(timeout=5)  # its log is complete after it ended
    tail = server.log_tail(100)
    if "couldn't bind" in tail:
        return cannot_listen(host, port)
    errors = [line for line in tail.splitlines() if " E " in line] or tail.splitlines()
    return StageError(
        f"{server.program} cannot load {settings['model']}: {reason}", hint="\n".join(errors[:8])
    )


def require_context(server: LlamaServer, context: int, label: str, field: str) -> None:
    """Require that a model is served with the requested context.

    Engines lower it to the model's training context. ``label`` is the model's name, and
    ``field`` is the field in the spec.

    Raises:
        StageError: The context is shorter.
    """
    served = server.limits.context
    if served < context:
        raise StageError(
            f"{label} is served with a context of {served} tokens, not {context}",
            hint=f"lower {field}",
        )
