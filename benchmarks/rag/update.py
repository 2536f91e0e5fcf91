"""One document in a hundred edited, through ``llmpipe run``, beside a build from nothing.

The same spec runs over the same documents in two places: one goes from edit to edit, the other has
an empty store. The time of the embed stage is the whole of its worker (start, look-ups in the
memory of vectors, writing, publishing) less what its metrics say that loading the model took.
"""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.rag import pipeline
from benchmarks.rag.contender import Contender
from benchmarks.rag.corpus import draw, questions
from benchmarks.rag.edits import edit
from benchmarks.rag.pipeline import Run, write_project
from benchmarks.rag.results import Measured, Table, Target, seconds
from benchmarks.rag.setting import Setting

STAGES = ("documents", "chunks", "vectors", "index")


def measure(setting: Setting) -> Measured:
    """Build, edit and run several times over, build what came of it from nothing, compare."""
    folder = setting.place("update")
    live, anew = folder / "live", folder / "anew"
    passages = draw(setting.documents)
    asked = [p.question for p in questions(passages, setting.queries)]
    write_project(live, passages, int8=setting.int8)
    fresh = [pipeline.run(live, setting)]
    updates, surplus = [], []
    for number in range(setting.rounds):
        change = edit(passages, number)
        passages = change.apply(passages)
        write_project(live, passages, int8=setting.int8)
        updates.append(pipeline.run(live, setting))
        embedded = updates[-1].stages["vectors"]["metrics"]["embedded"]
        surplus.append(embedded - len(change.changed) - len(change.added))
    write_project(anew, passages, int8=setting.int8)
    fresh.append(pipeline.run(anew, setting))
    found = _compared(setting, updates[-1], fresh[-1], asked)
    return _told(setting, fresh, updates, surplus, found)


def _compared(
    setting: Setting, updated: Run, built: Run, asked: list[str | None]
) -> dict[str, dict[str, int]]:
    indexes: dict[str, Any] = {
        "one": str(updated.output("index", "index")),
        "other": str(built.output("index", "index")),
    }
    with Contender("comparison", "compare", setting, **indexes) as comparison:
        return {
            mode: comparison.ask("compare", mode=mode, questions=asked)
            for mode in ("dense", "bm25", "hybrid")
        }


def _told(
    setting: Setting,
    fresh: list[Run],
    updates: list[Run],
    surplus: list[int],
    found: dict[str, dict[str, int]],
) -> Measured:
    taken = {
        name: [
            statistics.median(run.stage_seconds(name) for run in runs) for runs in (fresh, updates)
        ]
        for name in STAGES
    }
    taken["all of `llmpipe run`"] = [
        statistics.median(run.seconds for run in runs) for runs in (fresh, updates)
    ]
    rows = [
        (name, seconds(built), seconds(updated), f"{updated / built:.1%}")
        for name, (built, updated) in taken.items()
    ]
    chunks = updates[-1].stages["vectors"]["metrics"]["chunks"]
    embedded = [run.stages["vectors"]["metrics"]["embedded"] for run in updates]
    share = taken["vectors"][1] / taken["vectors"][0]
    title = f"{setting.documents:,} documents, {chunks:,} chunks, 1 % edited"
    different = sum(each["different"] for each in found.values())
    return Measured(
        "Update",
        [Table(title, ("stage, less loading its model", "fresh", "update", "part"), rows)],
        [
            Target("chunks embedded in an update beyond those that changed", max(surplus), 0, 0),
            Target("embed stage of an update, part of a fresh one", share, most=0.03),
            Target("questions whose ten nearest differ from a fresh build's", different, most=0),
        ],
        {
            "chunks": chunks,
            "embedded": embedded,
            "surplus": surplus,
            "seconds": {
                name: dict(zip(("fresh", "update"), t, strict=True)) for name, t in taken.items()
            },
            "embed_metrics": {
                "fresh": [run.stages["vectors"]["metrics"] for run in fresh],
                "update": [run.stages["vectors"]["metrics"] for run in updates],
            },
            "compared": found,
        },
    )
