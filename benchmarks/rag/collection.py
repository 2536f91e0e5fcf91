"""The larger collection, searched alone and under load: made once, then found in its store."""

from __future__ import annotations

from benchmarks.rag import pipeline
from benchmarks.rag.corpus import Passage, draw
from benchmarks.rag.pipeline import Run, write_project
from benchmarks.rag.setting import Setting

SLOTS = 2
"""Questions that the service answers at the same time."""


def collection(setting: Setting) -> tuple[Run, list[Passage]]:
    """Return the run that made it, and its documents."""
    passages = draw(setting.chunks)
    folder = setting.folder / "collection"
    write_project(folder, passages, int8=setting.int8, slots=SLOTS)
    return pipeline.run(folder, setting), passages
