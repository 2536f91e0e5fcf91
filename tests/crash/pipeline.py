"""A pipeline of cheap stages that is killed, starved of disk and run by many at once.

Every stage kind in it is real: shell commands, a teacher behind a loopback endpoint, formatting.
Its artifacts are compared by their bytes with those of a run that was not disturbed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from openai_endpoint import evolving_reply, schema_fields

HANG_S = 1200
"""Seconds after which a process is taken to be stuck. A machine that does other work is slow, not stuck."""

SPEC = """\
version: 1
name: crash
stages:
  seeds:
    kind: command
    run: >-
      echo seeds >> trace; sleep 0.2;
      for i in 1 2 3 4 5 6; do echo "{\\"instruction\\": \\"How heavy is item $i?\\"}"; done > ${outputs.rows}
    outputs: {rows: rows.jsonl}
  written:
    kind: generate
    method: evol-instruct
    teacher: {engine: openai, model: m, base_url: "URL", concurrency: 2}
    seeds: seeds
    count: 8
    rounds: 2
  dataset: {kind: format, data: written, to: messages}
  left: {kind: command, run: "echo left >> trace; sleep 0.2; sort ${inputs.i} > ${outputs.o}", inputs: {i: dataset.train}, outputs: {o: left.txt}}
  right: {kind: command, run: "echo right >> trace; mkdir ${outputs.o}; split -l 1 ${inputs.i} ${outputs.o}/part-; sleep 0.1", inputs: {i: dataset.train}, outputs: {o: right}}
  end: {kind: command, run: "echo end >> trace; cat ${inputs.l} ${inputs.r}/* > ${outputs.o}", inputs: {l: left, r: right}, outputs: {o: end.txt}}
"""

Digests = dict[str, dict[str, str]]


class Pipeline:
    """The pipeline in a folder of its own, run through the command line."""

    def __init__(self, folder: Path, url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.home = folder / ".llmpipe"
        (folder / "spec.yaml").write_text(SPEC.replace("URL", url), "utf-8")

    def start(self, *arguments: str, **env: str) -> subprocess.Popen[str]:
        """Start a run; its result goes to standard output as JSON."""
        return subprocess.Popen(
            [sys.executable, "-m", "llmpipe", "run", "spec.yaml", "--json", *arguments],
            cwd=self.folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run to the end, which must be good; return the stages of the result."""
        out, err = self.start(*arguments).communicate(timeout=HANG_S)
        assert out, err
        result = json.loads(out)
        assert result["status"] == "done", err
        stages: dict[str, Any] = result["stages"]
        return stages

    def trace(self) -> list[str]:
        """Return the names of the commands that have run so far, each as often as it has."""
        path = self.folder / "trace"
        return path.read_text().split() if path.exists() else []

    def finished(self, keys: dict[str, str]) -> set[str]:
        """Name the stages whose record is in the store."""
        return {s for s, key in keys.items() if (self.home / f"store/keys/{key}.json").exists()}

    def journaled(self) -> set[str]:
        """Name the requests whose replies are in the journal."""
        try:
            text = (self.home / "journal" / "replies.jsonl").read_text("utf-8")
        except FileNotFoundError:
            return set()
        whole = text[: text.rfind("\n") + 1]
        return set(re.findall(r"#([0-9a-f]{12})", whole))


def digests(stages: dict[str, Any]) -> Digests:
    """Return the SHA-256 of every output of a run's result, folders by names and bytes."""
    return {
        name: {output: content(Path(path)) for output, path in stage["outputs"].items()}
        for name, stage in stages.items()
    }


def content(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder's names and bytes."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    sha256 = hashlib.sha256()
    for file in files:
        sha256.update(f"{file.relative_to(path)}\n".encode() + file.read_bytes())
    return sha256.hexdigest()


def request_name(body: dict[str, Any]) -> str:
    """Name a request by what it asks."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:12]


def named_reply(body: dict[str, Any]) -> tuple[str, str]:
    """Reply as the endpoint does, with the request's name in the text: the journal tells it back."""
    if "equal" in schema_fields(body):
        return json.dumps({"equal": False, "of": f"#{request_name(body)}"}), "stop"
    text, finish = evolving_reply(body)
    return text.replace("item ", f"item #{request_name(body)} ", 1).replace(
        "Item ", f"Item #{request_name(body)} ", 1
    ), finish
