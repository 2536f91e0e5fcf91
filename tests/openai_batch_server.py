"""OpenAI's files and batches, for a loopback endpoint: a batch ends after it was looked at a few times."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from openai.types import Batch


class OpenAIBatchServer:
    """Answers ``/v1/files`` and ``/v1/batches``. ``looks`` is how often a batch is not yet ready."""

    def __init__(self, complete: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self.complete = complete
        self.looks = 2
        self.expires: set[str] = set()  # contents of requests that get no result
        self.fails = ""  # why a batch is refused as a whole
        self.files: dict[str, str] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.submitted: list[list[dict[str, Any]]] = []

    def post(self, path: str, data: bytes) -> tuple[int, Any, dict[str, str]]:
        """Take a file, or make a batch of one."""
        if path.endswith("/files"):
            parts = data.split(b"\r\n\r\n")  # of a form with several parts
            (content,) = [part for part in parts if part.startswith(b'{"custom_id"')]
            name = f"file-{len(self.files)}"
            self.files[name] = content.partition(b"\r\n--")[0].decode()
            return 200, self._file(name), {}
        asked = json.loads(data)
        lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        assert all(line["url"] == asked["endpoint"] for line in lines)
        self.submitted.append(lines)
        batch = {"id": f"batch_{len(self.batches)}", "object": "batch", "status": "in_progress",
                 "created_at": int(time.time()), "looks": self.looks, **asked}  # fmt: skip
        self.batches[batch["id"]] = batch
        return 200, self._shown(batch), {}

    def get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        """Show a batch, all of them, or the content of a file."""
        parts = path.partition("?")[0].strip("/").split("/")[1:]
        if parts == ["batches"]:
            newest = [self._shown(batch) for batch in reversed(self.batches.values())]
            return 200, {"object": "list", "data": newest, "has_more": False}, {}
        if parts[0] == "batches" and len(parts) == 2:
            return 200, self._looked_at(self.batches[parts[1]]), {}
        if parts[0] == "files" and parts[-1] == "content":
            return 200, self.files[parts[1]].encode(), {}
        return 404, {"error": {"message": path}}, {}

    def _looked_at(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch["looks"] -= 1
        if self.fails:
            batch["status"] = "failed"
            batch["errors"] = {"object": "list", "data": [{"message": self.fails}]}
        elif batch["looks"] < 0 and batch["status"] == "in_progress":
            batch["status"] = "completed"
            self._serve(batch)
        return self._shown(batch)

    def _serve(self, batch: dict[str, Any]) -> None:
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        for line in map(json.loads, self.files[batch["input_file_id"]].splitlines()):
            if line["body"]["messages"][-1]["content"] in self.expires:
                error = {"code": "batch_expired", "message": "expired"}
                bad.append({"custom_id": line["custom_id"], "response": None, "error": error})
                continue
            answer = {"status_code": 200, "body": self.complete(line["body"])}
            good.append({"custom_id": line["custom_id"], "response": answer, "error": None})
        for field, entries in (("output_file_id", good[::-1]), ("error_file_id", bad)):
            if entries:
                batch[field] = f"file-{len(self.files)}"
                self.files[batch[field]] = "".join(json.dumps(entry) + "\n" for entry in entries)

    def _shown(self, batch: dict[str, Any]) -> dict[str, Any]:
        shown = {name: value for name, value in batch.items() if name != "looks"}
        return Batch.model_validate(shown).model_dump(mode="json")

    def _file(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "file", "bytes": len(self.files[name]), "created_at": 0,
                "filename": name, "purpose": "batch", "status": "processed"}  # fmt: skip
