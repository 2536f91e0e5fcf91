"""Where the time of a question goes: embed it, search, rerank, make the prompt, write the answer.

Everything is loaded. What llama.cpp does with the prompt belongs to the writing; the prompt's own
time is that of laying out the sources within the model's context.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.rag.collection import collection
from benchmarks.rag.contender import Contender
from benchmarks.rag.corpus import package_folder, questions
from benchmarks.rag.results import Measured, Table, Target, seconds
from benchmarks.rag.setting import GENERATOR, Setting


def measure(setting: Setting) -> Measured:
    """Search for many questions and answer a few, and take each step's median."""
    run, passages = collection(setting)
    asked = [passage.question for passage in questions(passages, setting.queries)]
    chunks = run.stages["index"]["metrics"]["chunks"]
    package, _, name = GENERATOR.removeprefix("pkg://").partition("/")
    answers = Contender(
        "answers",
        "answers",
        setting,
        index=str(run.output("index", "index")),
        gguf=str(package_folder(package) / name),
        reranker=str(setting.reranker or ""),
    )
    with answers:
        answers.ask("search", questions=asked[:20])
        found = [answers.ask("search", questions=asked) for _ in range(setting.rounds)]
        written = answers.ask("ask", questions=asked[: setting.answers])
    embedding = [one for reply in found for one in reply["embedding"]]
    whole = [one for reply in found for one in reply["whole"]]
    searching = [all_ - part for all_, part in zip(whole, embedding, strict=True)]
    steps = {"embed the question": embedding, "search vectors and words": searching}
    steps |= {"both": whole}
    if setting.reranker:
        steps["rerank"] = written["rerank"]
    steps |= {"make the prompt": written["prompt"], "write the answer": written["generate"]}
    rows = [(step, *_median_and_worst(taken)) for step, taken in steps.items()]
    title = f"{chunks:,} chunks; {len(asked)} questions searched, {setting.answers} answered"
    return Measured(
        "Latency",
        [Table(title, ("step", "median", "95th percentile"), rows)],
        [Target("retrieval, ms in the median", statistics.median(whole) * 1000, most=30)],
        {
            "chunks": chunks,
            "medians": {step: statistics.median(taken) for step, taken in steps.items()},
            "answers": written,
            "build": _figures(run.stages),
        },
    )


def _median_and_worst(taken: list[float]) -> tuple[str, str]:
    worst = sorted(taken)[round(0.95 * (len(taken) - 1))]
    return seconds(statistics.median(taken)), seconds(worst)


def _figures(stages: dict[str, Any]) -> dict[str, Any]:
    """Return what the stages of the collection took and told."""
    return {
        name: {"seconds": stage["seconds"], "metrics": stage["metrics"]}
        for name, stage in stages.items()
    }
