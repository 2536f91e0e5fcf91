"""Find the first row that Axolotl cannot prepare: it says what is wrong, and not where.

``python -m axolotl_labels.bad_row axolotl.yml RESULT.json`` prepares the rows of a configuration
one by one, without loading a model, and writes which one failed and why; nothing if none did.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def main(config: str, result: str) -> None:
    """Prepare the rows of a configuration up to the first that fails, and write where it is."""
    from axolotl.cli.config import load_cfg
    from axolotl.loaders import load_tokenizer
    from axolotl.prompt_strategies import load

    cfg = load_cfg(config)
    if cfg.rl or cfg.reward_model:  # `axolotl_pairs` names its rows
        return
    tokenizer = load_tokenizer(cfg)
    longest = cfg.sequence_len if str(cfg.excess_length_strategy).lower() == "raise" else None
    for split in ("datasets", "test_datasets"):
        for entry in cfg[split] or ():
            strategy = load(entry.type, tokenizer, cfg, entry)
            file = Path(str(entry.path))
            if not hasattr(strategy, "tokenize_prompt") or not file.is_file():
                continue
            if found := _first(strategy, _rows(file), longest):
                row, error = found
                told = {"split": split, "row": row, "error": error}
                Path(result).write_text(json.dumps(told), "utf-8")
                return


def _first(
    strategy: Any, rows: Iterator[Mapping[str, Any]], longest: int | None
) -> tuple[int, str] | None:
    """Return the number of the first row that fails, from 1, and the error."""
    for number, row in enumerate(rows, 1):
        try:
            tokens = _tokens(strategy, row)
        except Exception as error:  # templates and strategies raise whatever they like
            return number, f"{type(error).__name__}: {error}"
        if longest and tokens > longest:
            return number, f"it has {tokens} tokens, more than sequence_len ({longest})"
    return None


def _tokens(strategy: Any, row: Mapping[str, Any]) -> int:
    """Prepare a row as Axolotl does, in a batch where that is possible; return its length."""
    if strategy.supports_batched:
        prepared = strategy.tokenize_prompt({name: [value] for name, value in row.items()})
        return max(map(len, prepared["input_ids"]), default=0)
    return len(strategy.tokenize_prompt(dict(row))["input_ids"])


def _rows(file: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.parquet as pq

    for batch in pq.ParquetFile(file).iter_batches(batch_size=1_000):
        yield from batch.to_pylist()


if __name__ == "__main__":
    main(*sys.argv[1:])
