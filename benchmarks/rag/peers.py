"""LangChain, txtai and Haystack beside llmpipe: the same documents, questions and embedder.

Each has its documents in memory and its embedder loaded, but for llmpipe, which writes memory and
index to the disk as its stages do. What is found is held against a comparison with every document.
The FAQ's questions are asked, of which the one answer in the documents is known: nDCG is by that.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.rag.contender import Contender, ContenderError, Reply, in_turn, medians
from benchmarks.rag.corpus import Passage, draw, questions, write_passages
from benchmarks.rag.edits import Edit, edit
from benchmarks.rag.results import Measured, Table, seconds
from benchmarks.rag.setting import Setting

PEERS = {"LangChain": "store_langchain", "txtai": "store_txtai", "Haystack": "store_haystack"}
OWN, HYBRID = "llmpipe", "llmpipe, hybrid"


def measure(setting: Setting) -> Measured:
    """Build, search, edit one document in a hundred, search again."""
    folder = setting.place("peers")
    passages = draw(setting.documents)
    change = edit(passages, 0)
    asked = [p for p in questions(passages, setting.queries) if p.id not in change.deleted]
    texts = [passage.question for passage in asked]
    with ExitStack() as stack:
        stores, absent = _stores(setting, stack, folder)
        figures = _compared(setting, folder, stores, passages, change, texts)
    truth = _truth(setting, folder / "after.jsonl", texts)
    for name, found in figures["found"].items():
        figures["recall_at_10"][name] = _recall(found, truth)
        figures["ndcg_at_10"][name] = _ndcg(found, [passage.id for passage in asked])
    del figures["found"]
    return Measured(
        "Peers",
        [_table(setting, len(asked), figures, absent)],
        figures={**figures, "absent": absent},
    )


def _stores(
    setting: Setting, stack: ExitStack, folder: Path
) -> tuple[list[Contender], dict[str, str]]:
    """Start all stores that are there; say of the others why not."""
    own = {OWN: "dense", HYBRID: "hybrid"}
    stores = [
        stack.enter_context(
            Contender(name, "store_llmpipe", setting, folder=str(folder), mode=mode)
        )
        for name, mode in own.items()
    ]
    absent = {}
    one = folder / "one.jsonl"
    write_passages(one, [Passage("one", "A document to see whether it works at all.")])
    for name, module in PEERS.items() if setting.peers else ():
        python = setting.peers / "bin" / "python" if setting.peers else None
        peer = stack.enter_context(Contender(name, module, setting, python=python))
        try:
            _try(peer, one)
        except ContenderError as error:
            absent[name] = str(error).splitlines()[-1]
        else:
            stores.append(peer)
    for store in stores[: len(own)]:
        _try(store, one)
    return stores, absent


def _try(store: Contender, one: Path) -> None:
    """Do everything once with one document; the model is loaded by it."""
    store.ask("build", passages=str(one))
    store.ask("update", passages=str(one), gone=[])
    store.ask("search", questions=["Does it work?"])


def _compared(
    setting: Setting,
    folder: Path,
    stores: Sequence[Contender],
    passages: Sequence[Passage],
    change: Edit,
    texts: Sequence[Any],
) -> dict[str, Any]:
    """Ask the same of all stores in turn; give medians, and what each found after the edit."""
    before = write_passages(folder / "before.jsonl", passages)
    news = write_passages(folder / "news.jsonl", (*change.changed, *change.added))
    write_passages(folder / "after.jsonl", change.apply(passages))
    built = in_turn(stores, 1, "build", passages=str(before))
    updated = in_turn(stores, 1, "update", passages=str(news), gone=change.deleted)
    in_turn(stores, 1, "search", questions=texts[:5])
    searched = in_turn(stores, setting.rounds, "search", questions=texts)
    every = {name: [one for r in found for one in r["each"]] for name, found in searched.items()}
    return {
        "build": medians(built),
        "update": medians(updated),
        "search": {name: statistics.median(taken) for name, taken in every.items()},
        "found": {name: replies[0] for name, replies in searched.items()},
        "recall_at_10": {},
        "ndcg_at_10": {},
    }


def _truth(setting: Setting, passages: Path, texts: Sequence[Any]) -> Reply:
    with Contender("exact", "exact", setting) as exact:
        return exact.ask("nearest", passages=str(passages), questions=texts)


def _recall(found: Reply, truth: Reply) -> float:
    return statistics.mean(
        len({*near} & {*true}) / len(true)
        for near, true in zip(found["found"], truth["found"], strict=True)
    )


def _ndcg(found: Reply, relevant: Sequence[str]) -> float:
    """Return the mean nDCG@10; each question has one relevant document."""
    return statistics.mean(
        1 / math.log2(near.index(name) + 2) if name in near else 0.0
        for near, name in zip(found["found"], relevant, strict=True)
    )


def _table(
    setting: Setting, asked: int, figures: Mapping[str, Any], absent: Mapping[str, str]
) -> Table:
    rows = []
    for name in figures["build"]:
        taken = [figures[what][name] for what in ("build", "update", "search")]
        own = [figures[what][OWN] for what in ("build", "update", "search")]
        cells = [f"{seconds(t)} ({t / o:.2f})" for t, o in zip(taken, own, strict=True)]
        kinds = ("recall_at_10", "ndcg_at_10")
        rows.append((name, *cells, *(f"{figures[kind][name]:.4f}" for kind in kinds)))
    rows += [(name, f"left out: {why}", "", "", "", "") for name, why in absent.items()]
    title = f"{setting.documents:,} documents, {asked} questions; in brackets ÷ {OWN}"
    head = ("", "build", "1 % edited", "one question", "recall@10", "nDCG@10")
    return Table(title, head, rows)
