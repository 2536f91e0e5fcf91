"""Serve a GGUF with llama.cpp in a child process, and talk to it.

`serve_gguf` starts ``llama_cpp_server.py``, waits until the model is loaded, verifies that whoever
answers at the address is the child just started, and stops it at the end. The child is in our
process group and ends when we do, even by ``kill -9``.

Connections are not kept alive: each call opens its own, and a call whose connection was dropped is
sent once more. Streaming is left to OpenAI clients, which may use the same address.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from llmpipe.errors import MissingDependencyError, StageError, UsageError

START_TIMEOUT = 600.0
"""Seconds that loading a model may take."""

CALL_TIMEOUT = 1800.0
"""Seconds that one reply may take; a slow CPU with a long prompt is slow, not broken."""

_SERVER = Path(__file__).with_name("llama_cpp_server.py")
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_DROPPED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)


@dataclass(slots=True)
class LlamaServer:
    """A running server. Its methods may be called from several threads at once.

    Every method raises `StageError` when the server has died or refuses the request.
    """

    url: str
    """Where it answers, such as ``http://127.0.0.1:41234``; OpenAI clients add ``/v1``."""
    model: str
    """The name that the server gives the model."""
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    api_key: str | None = field(default=None, repr=False)

    def tokenize(
        self, text: str, *, parse_special: bool = True, add_special: bool = False
    ) -> list[int]:
        """Give the token ids of ``text``.

        ``parse_special`` reads ``<|im_start|>`` and its like as the tokens that they name;
        ``add_special`` puts the model's own BOS (or EOS) tokens around the text.
        """
        body = {"content": text, "parse_special": parse_special, "add_special": add_special}
        tokens: list[int] = self._post("/tokenize", body)["tokens"]
        return tokens

    def apply_template(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Give the text that the model's chat template makes of ``messages``, ready to answer."""
        return str(self._post("/apply-template", {"messages": list(messages)})["prompt"])

    def props(self) -> dict[str, Any]:
        """Give what the server says of itself: context, slots, chat template, sampling defaults."""
        return self._call("GET", "/props", None)

    def complete(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> str:
        """Continue ``prompt``, a text or token ids, by at most ``max_tokens`` tokens."""
        body = {
            "prompt": prompt if isinstance(prompt, str) else list(prompt),
            "n_predict": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "stop": list(stop),
        }
        return str(self._post("/completion", body)["content"])

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        json_schema: Mapping[str, Any] | None = None,
    ) -> str:
        """Answer a conversation; ``json_schema`` constrains the decoding to what it allows."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        if json_schema is not None:
            shape = {"name": "reply", "strict": True, "schema": json_schema}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        reply = self._post("/v1/chat/completions", body)
        return str(reply["choices"][0]["message"]["content"] or "")

    def log_tail(self, lines: int = 15) -> str:
        """Give the last lines that llama.cpp logged."""
        self.log.flush()
        with Path(f"/proc/self/fd/{self.log.fileno()}").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 16_384))
            text = log.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    def check_identity(self, tag: str) -> None:
        """Make sure that the process that answers at our address is the one that we started."""
        models = self._call("GET", "/v1/models", None).get("data") or [{}]
        if tag not in models[0].get("tags", ()):
            raise StageError(
                f"another server answers at {self.url}", hint="stop it, or choose another port"
            )

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        try:
            status, text = self._exchange(method, path, body)
        except _DROPPED:
            self.check_alive()
            try:
                status, text = self._exchange(method, path, body)
            except OSError as error:
                raise self._unreachable(error) from error
        except OSError as error:
            raise self._unreachable(error) from error
        if status != 200:
            raise StageError(f"llama.cpp refused {path}: {_error_message(status, text)}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int, bytes]:
        place = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(
            place.hostname or "", place.port, timeout=CALL_TIMEOUT
        )
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _unreachable(self, error: OSError) -> StageError:
        self.check_alive()
        return StageError(f"llama.cpp at {self.url} does not answer: {error}")

    def check_alive(self) -> None:
        """Raise `StageError` with the end of the log when the server has died."""
        try:
            code = self.process.wait(timeout=1)  # with its socket gone it may still be going
        except subprocess.TimeoutExpired:
            return
        raise StageError(f"the llama.cpp server died ({_exit_text(code)})", hint=self.log_tail())


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
) -> Iterator[LlamaServer]:
    """Serve ``model`` for as long as the block lasts.

    Args:
        model: the GGUF file.
        threads: CPU threads that compute.
        context: tokens that one conversation may hold, prompt and reply together.
        slots: conversations that are answered at the same time; each has its own context.
        host: the address to bind.
        port: the port to bind; 0 lets the system choose a free one.
        alias: the model's name in the API; by default the file's name without its suffix.
        log: a file that llama.cpp's log is added to; by default it is kept only for errors.
        api_key: when given, callers must send it as a bearer token.
        cache_prompt: reuse the computed part of a prompt that begins like the slot's last one:
            quicker, but replies may then depend on what was asked before.

    Raises:
        MissingDependencyError: xllamacpp is not installed.
        StageError: the file is not a GGUF that llama.cpp can load, the port is taken, or another
            process answers in the server's place.
    """
    if find_spec("xllamacpp") is None:
        raise MissingDependencyError(
            "serving a GGUF needs xllamacpp", hint="pip install 'llmpipe[serve]'"
        )
    name = alias or model.stem
    tag = secrets.token_hex(16)
    settings = {
        "model": os.fspath(model.resolve()),
        "threads": threads,
        "context": context,
        "slots": slots,
        "host": host,
        "port": port,
        "alias": name,
        "tag": tag,
        "api_keys": [api_key] if api_key else [],
        "cache_prompt": cache_prompt,
    }
    with _open_log(log) as log_file, _child(log_file) as process:
        server = LlamaServer("", name, process, log_file, api_key)
        address = _wait_until_loaded(server, settings)
        server.url = _reachable(address, host)
        server.check_identity(tag)
        yield server


@contextmanager
def _open_log(log: Path | None) -> Iterator[IO[bytes]]:
    with log.open("ab") if log else tempfile.TemporaryFile() as file:
        yield file


@contextmanager
def _child(log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Start the server's process and, at the end, close its standard input, which ends it."""
    process = subprocess.Popen(
        # -P: the script's folder holds modules named like the libraries that they wrap.
        [sys.executable, "-P", os.fspath(_SERVER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
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
    answer = json.loads(line) if line else {"error": _exit_text(process.wait())}
    if "error" in answer:
        raise _start_error(server, settings, answer["error"])
    return str(answer["address"])


def _start_error(server: LlamaServer, settings: Mapping[str, Any], reason: str) -> StageError:
    host, port = settings["host"], settings["port"]
    with suppress(subprocess.TimeoutExpired):
        server.process.wait(timeout=5)  # its log is whole when it is gone
    tail = server.log_tail(100)
    if "couldn't bind" in tail:
        return StageError(
            f"cannot listen on {host}:{port}: the port is in use or the address is not ours",
            hint="choose another port, or stop what listens there",
        )
    errors = [line for line in tail.splitlines() if " E " in line] or tail.splitlines()
    return StageError(
        f"llama.cpp cannot load {settings['model']}: {reason}", hint="\n".join(errors[:8])
    )


def _reachable(address: str, host: str) -> str:
    """Give the address to call: a server bound to every interface is called by loopback."""
    port = address.rpartition(":")[2].strip("/")
    host = _WILDCARDS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _exit_text(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit status {code}"


def _error_message(status: int, text: bytes) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {text[:200].decode('utf-8', 'replace')}"


def serve_forever(
    model: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    context: int = 2048,
    slots: int = 1,
    threads: int,
    alias: str | None = None,
    api_key_env: str | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> int:
    """Serve ``model`` over the OpenAI API until Ctrl-C; give the exit code, 0.

    ``api_key_env`` names the environment variable that holds the key which callers must send.
    ``on_ready`` is called with the URL when the server answers. See `serve_gguf` for the rest.

    Raises:
        UsageError: other machines could reach the address and no key is asked for, or the
            variable for the key is not set.
        StageError: the server cannot start, or it dies.
    """
    api_key = _api_key(api_key_env)
    if api_key is None and not _is_loopback(host):
        raise UsageError(
            f"{host} can be reached from other machines, and no API key protects it",
            hint="bind 127.0.0.1, or name the variable with a key: --api-key-env NAME",
        )
    try:
        with serve_gguf(
            model,
            threads=threads,
            context=context,
            slots=slots,
            host=host,
            port=port,
            alias=alias,
            api_key=api_key,
            cache_prompt=True,
        ) as server:
            on_ready(server.url)
            code = server.process.wait()
            raise StageError(
                f"the llama.cpp server died ({_exit_text(code)})", hint=server.log_tail()
            )
    except KeyboardInterrupt:
        return 0  # how a server is meant to be stopped


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UsageError(
            f"the environment variable {variable} holds no API key", hint=f"export {variable}=…"
        )
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
