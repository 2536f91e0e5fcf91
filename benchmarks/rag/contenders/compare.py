"""Ask two indexes the same questions, and see whether they find the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.rag.contenders import replies
from benchmarks.rag.contenders.llmpipe_parts import open_embedder_of
from llmpipe.retrieval.search import Mode, Retriever


def main() -> None:
    """Answer requests."""
    told = replies.told()
    folders = [Path(told["one"]), Path(told["other"])]
    embedder = open_embedder_of(folders[0], Path(told["model"]), told["threads"])
    one, other = (Retriever.open(folder, embedder) for folder in folders)

    def compare(mode: Mode, questions: list[str]) -> dict[str, Any]:
        """Return the questions to which the ten passages or their order differ."""

        def found(retriever: Retriever, question: str) -> list[str]:
            return [hit.chunk.id for hit in retriever.search(question, k=10, mode=mode)]

        pairs = [(found(one, question), found(other, question)) for question in questions]
        return {
            "different": sum({*a} != {*b} for a, b in pairs),
            "ordered_otherwise": sum(a != b for a, b in pairs),
        }

    replies.answer({"compare": compare})


if __name__ == "__main__":
    main()
