"""A client of yaml-language-server, the program that VS Code, Neovim and others ask about YAML.

It speaks the language server protocol over the server's standard input and output, as an editor
does: JSON-RPC messages behind a ``Content-Length`` header.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

SERVER = Path(__file__).parent / "editor/node_modules/yaml-language-server/bin/yaml-language-server"

SETTINGS = {
    "yaml": {
        "validate": True,
        "hover": True,
        "completion": True,
        "schemaStore": {"enable": False},  # it lies on the network
    }
}


class LanguageServer:
    """A running server; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which("node"), "yaml-language-server needs Node.js 20 or later"
        assert SERVER.exists(), "yaml-language-server is not installed: make editor"
        self._process = subprocess.Popen(
            ["node", str(SERVER), "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._last_id = self._documents = 0
        self._diagnostics: dict[str, list[dict[str, Any]]] = {}
        self._ask("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}})
        self._tell("initialized", {})
        self._tell("workspace/didChangeConfiguration", {"settings": SETTINGS})

    def __enter__(self) -> LanguageServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._ask("shutdown", None)
        self._tell("exit", None)
        self._process.communicate(timeout=20)

    def diagnostics(self, folder: Path, text: str) -> list[dict[str, Any]]:
        """Open a document with this text and return what the server finds wrong with it."""
        uri = self._open(folder, text)
        while uri not in self._diagnostics:
            self._take(self._read())
        return self._diagnostics[uri]

    def completions(self, folder: Path, text: str, at: tuple[int, int]) -> dict[str, Any]:
        """Return what is offered at a line and column, both from 0, by its label."""
        found = self._ask_about("textDocument/completion", folder, text, at)
        items = found["items"] if isinstance(found, dict) else found
        return {item["label"]: item for item in items}

    def hover(self, folder: Path, text: str, at: tuple[int, int]) -> str:
        """Return what is shown at a line and column, both from 0, as Markdown."""
        found = self._ask_about("textDocument/hover", folder, text, at)
        contents = found["contents"] if found else ""
        return str(contents["value"] if isinstance(contents, dict) else contents)

    def _ask_about(self, method: str, folder: Path, text: str, at: tuple[int, int]) -> Any:
        uri = self._open(folder, text)
        position = {"line": at[0], "character": at[1]}
        return self._ask(method, {"textDocument": {"uri": uri}, "position": position})

    def _open(self, folder: Path, text: str) -> str:
        """Open a new document, which need not exist as a file."""
        self._documents += 1
        uri = (folder / f"document-{self._documents}.yaml").as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": 1, "text": text}
        self._tell("textDocument/didOpen", {"textDocument": document})
        return uri

    def _ask(self, method: str, params: Any) -> Any:
        self._last_id += 1
        self._send({"id": self._last_id, "method": method, "params": params})
        while True:
            message = self._read()
            if message.get("id") == self._last_id and "method" not in message:
                assert "error" not in message, message["error"]
                return message["result"]
            self._take(message)

    def _tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def _take(self, message: dict[str, Any]) -> None:
        """Deal with what the server says or asks of its own accord."""
        if message.get("method") == "textDocument/publishDiagnostics":
            self._diagnostics[message["params"]["uri"]] = message["params"]["diagnostics"]
        elif "id" in message and "method" in message:
            self._send({"id": message["id"], "result": None})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _read(self) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        length = 0
        while (line := stream.readline().strip()) or not length:
            assert line, f"the server ended with status {self._process.wait()}"
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        message: dict[str, Any] = json.loads(stream.read(length))
        return message
