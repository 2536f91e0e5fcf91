"""Show rows as Axolotl tokenizes them, what is trained between ⟦ and ⟧.

``python -m axolotl_labels.show axolotl.yml RESULT.json`` prepares the rows of a configuration
without loading a model, and writes them as a list of texts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from .rows import UNTRAINED

OPEN, CLOSE = "⟦", "⟧"


def main(config: str, result: str) -> None:
    """Prepare the rows of a configuration and write how they are trained."""
    from axolotl.cli.config import load_cfg
    from axolotl.common.datasets import load_datasets, load_preference_datasets
    from axolotl.loaders import load_tokenizer

    cfg = load_cfg(config)
    load = load_preference_datasets if cfg.rl else load_datasets
    dataset = load(cfg=cfg).train_dataset
    tokenizer = load_tokenizer(cfg)
    texts = [text for row in dataset for text in shown(row, tokenizer)]
    Path(result).write_text(json.dumps(texts), "utf-8")


def shown(row: Mapping[str, Any], tokenizer: Any) -> Iterator[str]:
    """Yield the texts of a prepared row: one for each of its answers."""
    if "input_ids" in row and "labels" in row:
        yield marked(row["input_ids"], row["labels"], tokenizer)
        return
    prompt = row.get("prompt_ids") or row.get("prompt") or []
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], Mapping):
        options = {"tokenize": False, "add_generation_prompt": True}
        asked = tokenizer.apply_chat_template(prompt, **options)
        yield f"{asked}{OPEN}what the model writes{CLOSE}"
        return
    for name in ("chosen", "rejected", "completion"):
        label = f" (label: {row['label']})" if "label" in row else ""
        answer = row.get(f"{name}_ids") or row.get(name)
        if f"{name}_labels" in row:
            text = marked(row[f"{name}_input_ids"], row[f"{name}_labels"], tokenizer)
        elif answer is not None:
            text = f"{_text(prompt, tokenizer)}{OPEN}{_text(answer, tokenizer)}{CLOSE}"
        else:
            continue
        yield f"{name}{label}: {text}"


def marked(ids: Sequence[int], labels: Sequence[int], tokenizer: Any) -> str:
    """Return the text of tokens, what is trained between brackets."""
    parts = []
    for trained, pairs in groupby(zip(ids, labels, strict=True), lambda pair: pair[1] != UNTRAINED):
        text = tokenizer.decode([token for token, _ in pairs])
        parts.append(f"{OPEN}{text}{CLOSE}" if trained else text)
    return "".join(parts)


def _text(value: Any, tokenizer: Any) -> str:
    if isinstance(value, str):
        return value
    tokens = isinstance(value, list) and all(isinstance(token, int) for token in value)
    return str(tokenizer.decode(value)) if tokens else json.dumps(value, default=str)


if __name__ == "__main__":
    main(*sys.argv[1:])
