"""An Axolotl prompt strategy for reward models: each answer as a whole conversation's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axolotl.prompt_tokenizers import DatasetWrappingStrategy
from axolotl.utils.logging import get_logger

from . import renderer

LOG = get_logger(__name__)


class RewardStrategy(DatasetWrappingStrategy):  # type: ignore[misc]  # Axolotl is not typed
    """Turns rows of pairs into ``chosen_ids`` and ``rejected_ids``."""

    def __init__(self, tokenizer: Any, cfg: Any, entry: Any) -> None:
        self._tokenizer = tokenizer
        self._rendered = renderer(cfg, entry)
        self._longest = cfg.sequence_len
        self._excess = (cfg.excess_length_strategy or "drop").lower()

    def wrap_dataset(
        self, dataset: Any, process_count: int | None = None, keep_in_memory: bool | None = False
    ) -> Any:
        """Tokenize all rows; leave out, cut or refuse those longer than ``sequence_len``."""
        options = {"num_proc": process_count, "keep_in_memory": bool(keep_in_memory)}
        wrapped = dataset.map(self._tokens, remove_columns=dataset.column_names, **options)
        kept = wrapped.filter(self._fits, **options)
        if len(kept) < len(wrapped):
            dropped = len(wrapped) - len(kept)
            LOG.warning(f"Dropped {dropped} samples longer than sequence_len ({self._longest})")
        return kept

    def _tokens(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        _, chosen, rejected = self._rendered(sample, self._tokenizer)
        columns: dict[str, Any] = {}
        for name, text in (("chosen", chosen), ("rejected", rejected)):
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            if len(ids) > self._longest and self._excess == "raise":
                raise ValueError(
                    f"{sample['row']}: {len(ids)} tokens with the {name} answer, but sequence_len "
                    f"is {self._longest}"
                )
            if self._excess == "truncate":
                ids = ids[: self._longest]
            columns[f"{name}_ids"] = ids
            columns[f"attention_mask_{name}"] = [1] * len(ids)
        return columns

    def _fits(self, columns: Mapping[str, Any]) -> bool:
        return all(len(columns[f"{name}_ids"]) <= self._longest for name in ("chosen", "rejected"))


def load(tokenizer: Any, cfg: Any, ds_cfg: Any = None) -> RewardStrategy:
    """Return the strategy; Axolotl calls this where a data set's type names this module."""
    return RewardStrategy(tokenizer, cfg, ds_cfg or {})
