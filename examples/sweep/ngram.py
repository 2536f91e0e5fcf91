"""A language model small enough for a sweep of seconds: counts of bytes after the bytes before.

    python ngram.py fit ROWS MODEL       ORDER and DISCOUNT come from the environment
    python ngram.py measure MODEL ROWS   prints the model's figures on other rows as JSON

Absolute discounting: of what was counted after a context, DISCOUNT is taken off each different byte
and given to the next shorter context; below the empty one all 256 bytes are equally likely.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any


def read_texts(path: str) -> list[bytes]:
    """Return the words of each conversation in a file of chat rows, as bytes."""
    rows = (json.loads(line) for line in Path(path).read_text("utf-8").splitlines())
    return ["\n".join(m["content"] for m in row["messages"]).encode() + b"\n\n" for row in rows]


def fit(texts: list[bytes], order: int, discount: float) -> dict[str, Any]:
    """Count what follows each context of up to ``order`` - 1 bytes."""
    counts: dict[bytes, Counter[int]] = defaultdict(Counter)
    for text in texts:
        for i, byte in enumerate(text):
            for length in range(min(order - 1, i) + 1):
                counts[text[i - length : i]][byte] += 1
    # JSON has no bytes: Latin-1 gives every byte its own letter
    shown = {context.decode("latin-1"): dict(found) for context, found in counts.items()}
    return {"order": order, "discount": discount, "counts": shown}


def bits(model: dict[str, Any], text: str, i: int) -> float:
    """Return the bits that the model needs for one byte of a text after those before it."""
    byte, probability = str(ord(text[i])), 1 / 256
    for length in range(min(model["order"] - 1, i) + 1):  # from the empty context on
        found = model["counts"].get(text[i - length : i])
        if found is None:
            break
        total = sum(found.values())
        own = max(found.get(byte, 0) - model["discount"], 0) / total
        probability = own + model["discount"] * len(found) / total * probability
    return -math.log2(probability)


def measure(model: dict[str, Any], texts: list[bytes]) -> dict[str, float]:
    """Return the model's mean bits per byte: fewer are better, eight is knowing nothing."""
    shown = [text.decode("latin-1") for text in texts]
    needed = sum(bits(model, text, i) for text in shown for i in range(len(text)))
    return {"bits_per_byte": needed / sum(map(len, shown)), "contexts": len(model["counts"])}


def main() -> None:
    """Do what the command line says."""
    action, first, second = sys.argv[1:]
    if action == "fit":
        model = fit(read_texts(first), int(os.environ["ORDER"]), float(os.environ["DISCOUNT"]))
        Path(second).write_text(json.dumps(model), "ascii")
    else:
        print(json.dumps(measure(json.loads(Path(first).read_bytes()), read_texts(second))))


if __name__ == "__main__":
    main()
