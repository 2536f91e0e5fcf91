"""Run a generation method without a stage: a client that is a function, and the loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmpipe.backends.openai.chat import ChatReply, ChatRequest
from llmpipe.contracts import Artifact
from llmpipe.stages.generate.asking import Teacher
from llmpipe.stages.generate.loop import GenerationState, collect
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.protocol import MethodContext

TEACHER = {"engine": "openai", "model": "m", "base_url": "http://h/v1", "concurrency": 3}


class Client:
    """Replies by a function of the request; ``asked`` holds the requests."""

    def __init__(self, reply: Callable[[ChatRequest], ChatReply | str]) -> None:
        self.reply = reply
        self.asked: list[ChatRequest] = []

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Return one reply to each request, in their order."""
        self.asked += requests
        replies = (self.reply(request) for request in requests)
        return [ChatReply(each) if isinstance(each, str) else each for each in replies]


class MethodRun:
    """A method over files in a folder."""

    def __init__(self, folder: Path, cls: Any, **fields: Any) -> None:
        self.folder = folder
        self.cls = cls
        self.fields = {"kind": "generate", "teacher": TEACHER, **fields}
        self.inputs: dict[str, Artifact] = {}
        self.told: list[str] = []

    def write(self, port: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the rows of an input."""
        path = self.folder / f"{port}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.inputs[port] = Artifact(path, "records", "", path.name)

    def config(self, **fields: Any) -> Any:
        """Return the method's config."""
        return msgspec.convert({**self.fields, **fields}, self.cls.Config)

    def __call__(self, client: Any, rows: int, **fields: Any) -> GenerationState:
        """Return what the loop collects; fewer rows are allowed."""
        config = self.config(count=rows, **fields)
        state = GenerationState(rows)
        method = self.cls(MethodContext(config, self.inputs, state.missing, self.told.append))
        state.exclude(method.known_questions())
        teacher = Teacher(client, Pace(lambda note: None), temperature=0.7, max_tokens=256)
        collect(
            method, teacher, state, self.told.append, patience=config.patience, allow_fewer=True
        )
        self.metrics = method.metrics()
        return state
