"""The truth that stores are held against: every document compared with the question, by numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from benchmarks.rag.contenders import replies
from benchmarks.rag.corpus import read_passages


def main() -> None:
    """Answer requests."""
    told = replies.told()
    torch.set_num_threads(told["threads"])
    model = SentenceTransformer(told["model"], device="cpu")

    def nearest(passages: str, questions: list[str]) -> dict[str, Any]:
        read = read_passages(Path(passages))
        options: dict[str, Any] = {"normalize_embeddings": True, "show_progress_bar": False}
        vectors = model.encode([p.text for p in read], **options)
        scores = model.encode(questions, **options) @ vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        return {"found": [[read[place].id for place in row] for row in best]}

    replies.answer({"nearest": nearest})


if __name__ == "__main__":
    main()
