"""Embed by `SentenceTransformer.encode`, as its documentation shows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.rag.contenders import replies
from benchmarks.rag.corpus import read_passages


def main() -> None:
    """Answer requests."""
    told = replies.told()
    torch.set_num_threads(told["threads"])
    model = SentenceTransformer(told["model"], device="cpu")
    texts = [passage.text for passage in read_passages(Path(told["passages"]))]

    def embed() -> dict[str, Any]:
        begun = time.perf_counter()
        model.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
        return {"seconds": time.perf_counter() - begun}

    replies.answer({"embed": embed})


if __name__ == "__main__":
    main()
