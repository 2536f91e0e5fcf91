"""Embed as the embed stage does once its model is loaded: count, embed in shards, remember."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.rag.contenders import replies
from benchmarks.rag.contenders.llmpipe_parts import chunk_of, open_minilm
from benchmarks.rag.corpus import read_passages
from llmpipe.backends.embedders.folder import load_tokenizer
from llmpipe.retrieval.chunks import write_chunks
from llmpipe.retrieval.vector_memory import VectorMemory
from llmpipe.retrieval.vectors import Backlog, embed_backlog


def main() -> None:
    """Answer requests."""
    told = replies.told()
    model = Path(told["model"])
    embedder = open_minilm(model, told["threads"])
    tokenizer = load_tokenizer(model)
    folder = Path(tempfile.mkdtemp(dir=told["folder"]))
    write_chunks(folder / "chunks.jsonl", map(chunk_of, read_passages(Path(told["passages"]))))

    def embed() -> dict[str, Any]:
        """Embed all with an empty memory."""
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            begun = time.perf_counter()
            with VectorMemory(Path(temporary, "memory.sqlite")) as memory:
                backlog = Backlog.read(folder / "chunks.jsonl", "", memory)
                backlog.count_again(tokenizer, embedder.identity)
                embed_backlog(backlog, embedder, memory, lambda done: None)
            return {"seconds": time.perf_counter() - begun, "tokens": backlog.tokens}

    replies.answer({"embed": embed})


if __name__ == "__main__":
    main()
