"""Score passages for a question with a cross-encoder, which reads both together.

It is slower and more accurate than vectors, and reorders what a search has found. The model is
loaded from a local folder, safetensors only, and returns one score per pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from llmpipe.backends.suppress_logs import suppress_logs
from llmpipe.errors import StageError

BATCH = 16
CHARACTERS_PER_TOKEN = 8
"""A question is cut after this many characters per token that the model takes."""


class Reranker(Protocol):
    """Scores passages for a question; a higher score means a better match."""

    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return a score for each passage, in order."""


class CrossEncoder:
    """A sequence classification model with one label, such as those trained on MS MARCO."""

    def __init__(self, folder: Path, *, threads: int = 1) -> None:
        """Load the model.

        Raises:
            StageError: the folder does not contain such a model.
        """
        from llmpipe.backends.huggingface.inference import load_tokenizer
        from llmpipe.backends.huggingface.tensors import weight_files

        weight_files(folder)
        self._tokenizer = load_tokenizer(folder)
        try:
            with suppress_logs():
                import torch
                from transformers import AutoModelForSequenceClassification

                torch.set_num_threads(threads)
                self._model = AutoModelForSequenceClassification.from_pretrained(
                    str(folder), local_files_only=True, use_safetensors=True
                ).eval()
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise StageError(f"{folder.name} cannot be used to rerank: {reason}") from None
        labels = self._model.config.num_labels
        if labels != 1:
            raise StageError(
                f"{folder.name} cannot be used to rerank: it returns {labels} scores per pair",
                hint="use a cross-encoder that was trained to rank, with a single label",
            )
        positions = getattr(self._model.config, "max_position_embeddings", 512)
        self._tokens = min(self._tokenizer.model_max_length, positions)

    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return the model's score for each passage; a pair that is too long is cut."""
        import torch

        question = question[: self._tokens * CHARACTERS_PER_TOKEN]
        scores = [0.0] * len(passages)
        by_length = sorted(range(len(passages)), key=lambda i: len(passages[i]))
        for begin in range(0, len(passages), BATCH):
            batch = by_length[begin : begin + BATCH]
            pairs = self._tokenizer(
                [question] * len(batch),
                [passages[i] for i in batch],
                truncation="longest_first",
                max_length=self._tokens,
                padding=True,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits = self._model(**pairs).logits[:, 0].float()
            for i, score in zip(batch, logits.tolist(), strict=True):
                scores[i] = score
        return scores
