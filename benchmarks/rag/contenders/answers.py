"""Ask questions of an index and have a model answer them, and say where the time went.

The parts are opened and joined as the rag stage does; the embedder is wrapped, to be timed alone.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.rag.contenders import replies
from benchmarks.rag.contenders.llmpipe_parts import open_embedder_of
from llmpipe.contracts import Artifact
from llmpipe.retrieval.answer import Answerer, AnswerSettings
from llmpipe.retrieval.embedder import Embedder
from llmpipe.retrieval.generator import GeneratorConfig, open_generator
from llmpipe.retrieval.rerank import CrossEncoder
from llmpipe.retrieval.search import Retriever
from llmpipe.retrieval.threshold import Threshold

if TYPE_CHECKING:
    from llmpipe.retrieval.embedder import Vectors


class Clocked:
    """An embedder that notes how long the last question took it."""

    def __init__(self, embedder: Embedder) -> None:
        self.identity = embedder.identity
        self.callers = embedder.callers
        self.embed_passages = embedder.embed_passages
        self.seconds = 0.0
        self._embedder = embedder

    def embed_query(self, text: str) -> Vectors:
        """Embed a question."""
        begun = time.perf_counter()
        vector = self._embedder.embed_query(text)
        self.seconds = time.perf_counter() - begun
        return vector


def main() -> None:
    """Answer requests."""
    told = replies.told()
    index, gguf, threads = Path(told["index"]), Path(told["gguf"]), told["threads"]
    with ExitStack() as stack:
        loaded = open_embedder_of(index, Path(told["model"]), threads)
        embedder = Clocked(stack.enter_context(loaded))
        config = GeneratorConfig(engine="llama.cpp", model=str(gguf), max_tokens=64)
        opening = open_generator(
            config, Artifact(gguf, "gguf", "generator", gguf.name), threads=threads, reveal=str
        )
        answerer = Answerer(
            Retriever.open(index, embedder, threads=threads),
            stack.enter_context(opening),
            AnswerSettings(),
            Threshold("none"),
            CrossEncoder(Path(told["reranker"]), threads=threads) if told["reranker"] else None,
        )
        replies.answer(_requests(answerer, embedder))


def _requests(answerer: Answerer, embedder: Clocked) -> dict[str, Any]:
    def search(questions: list[str]) -> dict[str, Any]:
        """Search without a reranker; return the seconds of each question, and those to embed it."""
        embedding, whole = [], []
        for question in questions:
            begun = time.perf_counter()
            answerer.retriever.search(question, k=answerer.settings.k)
            whole.append(time.perf_counter() - begun)
            embedding.append(embedder.seconds)
        return {"embedding": embedding, "whole": whole}

    def ask(questions: list[str]) -> dict[str, Any]:
        """Answer; return the seconds of each step for each question, and the tokens written."""
        steps: dict[str, list[float]] = {"embed": [], "tokens": []}
        for question in questions:
            answer = answerer.answer(question)
            timings = answer.timings
            steps["embed"].append(embedder.seconds)
            for step in ("retrieve", "rerank", "prompt", "generate"):
                steps.setdefault(step, []).append(getattr(timings, step))
            steps["tokens"].append(answer.usage.completion_tokens or 0)
        return steps

    return {"search": search, "ask": ask}


if __name__ == "__main__":
    main()
