"""Compute the logits of a GGUF with the library that serves it, in a subprocess.

llama.cpp's server returns the probabilities of what it writes, not of a given answer. This returns
the logits for every token of given answers, over the whole vocabulary.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmpipe.backends.llama_cpp.client import exit_text
from llmpipe.backends.llama_cpp.ggml import library_file
from llmpipe.errors import StageError

_CHILD = Path(__file__).with_name("logits_child.py")

Score = Callable[[Sequence[int], int], Any]
"""Return the logits that predict the tokens of a row from a position on: float32, shape (tokens,
vocabulary)."""


@contextmanager
def gguf_logits(
    model: Path, *, context: int, threads: int, label: str, adapter: Path | None = None
) -> Iterator[Score]:
    """Load a GGUF during the block, and yield a function that computes the logits of a row.

    Args:
        model: the GGUF file, or the first of its parts.
        context: the tokens of the longest row.
        threads: CPU threads to compute on.
        label: what messages call the model.
        adapter: a GGUF adapter to apply to the model.

    Raises:
        MissingDependencyError: xllamacpp is not installed.
        StageError: the file cannot be loaded, or a row cannot be computed.
    """
    settings = {
        "library": os.fspath(library_file()),
        "model": os.fspath(model.parent.resolve() / model.name),
        "context": context,
        "threads": threads,
        "adapter": None if adapter is None else os.fspath(adapter.resolve()),
    }
    with tempfile.TemporaryFile() as log, _started(log) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def failed(reason: str) -> StageError:
            log.seek(0)
            lines = [line for line in log.read().decode(errors="replace").splitlines() if line]
            hint = "\n".join(lines[-5:]) or None
            return StageError(f"{label}: llama.cpp cannot compute logits: {reason}", hint=hint)

        def ask(value: dict[str, Any]) -> None:
            try:
                process.stdin.write(json.dumps(value).encode() + b"\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
            except OSError:
                raise failed(exit_text(process.wait())) from None

        def score(ids: Sequence[int], start: int) -> Any:
            import numpy as np

            ask({"ids": list(ids), "start": start})
            wanted = (len(ids) - start) * vocabulary * 4
            found = process.stdout.read(wanted)  # type: ignore[union-attr]
            if len(found) < wanted:
                raise failed(f"a row of {len(ids)} tokens: {exit_text(process.wait())}")
            return np.frombuffer(found, np.float32).reshape(-1, vocabulary)

        ask(settings)
        line = process.stdout.readline()
        answer = json.loads(line) if line else {"error": exit_text(process.wait())}
        if "error" in answer:
            raise failed(answer["error"])
        vocabulary = int(answer["vocabulary"])
        yield score


@contextmanager
def _started(log: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-P", os.fspath(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
    )
    with process:  # the end closes its standard input, which ends it
        try:
            yield process
        except BaseException:
            process.kill()
            raise
