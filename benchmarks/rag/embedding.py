"""How many texts a second the embed stage's embedder takes, beside the library called plainly."""

from __future__ import annotations

from typing import Any

from benchmarks.rag.contender import Contender, in_turn, medians, together
from benchmarks.rag.corpus import draw, write_passages
from benchmarks.rag.results import Measured, Table, Target
from benchmarks.rag.setting import Setting

OWN, PLAIN = "llmpipe", "sentence-transformers"


def measure(setting: Setting) -> Measured:
    """Embed the same texts by both, models loaded, and compare texts per second."""
    folder = setting.place("embedding")
    passages = write_passages(folder / "passages.jsonl", draw(setting.texts))
    given: dict[str, Any] = {"passages": str(passages), "folder": str(folder)}
    both = (
        Contender(OWN, "embed_llmpipe", setting, **given),
        Contender(PLAIN, "embed_plain", setting, **given),
    )
    with together(*both):
        in_turn(both, 1, "embed")  # the first round is slower for everyone
        replies = in_turn(both, setting.rounds, "embed")
    rates = {name: setting.texts / taken for name, taken in medians(replies).items()}
    ratio = rates[OWN] / rates[PLAIN]
    row = ("texts a second", f"{rates[OWN]:.1f}", f"{rates[PLAIN]:.1f}", f"{ratio:.2f}")
    title = f"{setting.texts} passages, batches of 32, model loaded"
    return Measured(
        "Embedding",
        [Table(title, ("", OWN, PLAIN, f"{OWN} ÷ {PLAIN}"), [row])],
        [Target("texts a second, llmpipe ÷ plain", ratio, least=0.95)],
        {"texts": setting.texts, "texts_per_second": rates, "ratio": ratio, "rounds": replies},
    )
