"""How a contender answers: a line of JSON for a line of JSON, until its input ends."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def told() -> dict[str, Any]:
    """Return what the contender was told at its start."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    return given


def answer(requests: Mapping[str, Callable[..., Mapping[str, Any]]]) -> None:
    """Answer requests by name. What libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            asked = json.loads(line)
            reply = requests[asked.pop("request")](**asked)
            print(json.dumps(reply), file=replies, flush=True)


def each_timed(
    search: Callable[[Any], list[str]], questions: Iterable[Any]
) -> dict[str, list[Any]]:
    """Search for one question after the other; return the seconds and what was found for each."""
    seconds, found = [], []
    for question in questions:
        begun = time.perf_counter()
        found.append(search(question))
        seconds.append(time.perf_counter() - begun)
    return {"each": seconds, "found": found}
