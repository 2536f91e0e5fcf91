"""Building and searching an index of many vectors, beside FAISS called plainly.

llmpipe's index is searched as in use: opened from its file, which stays on the disk, one question
at a time, best first with ties by row. Plain FAISS holds its index in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchmarks.rag.clustered import DIMENSION, write_clustered
from benchmarks.rag.contender import Contender, Reply, in_turn, medians, together
from benchmarks.rag.results import Measured, Table, Target, seconds
from benchmarks.rag.setting import Setting

OWN, PLAIN = "llmpipe", "FAISS"
EXACT, GRAPH = "Flat", "HNSW32"
COMPRESSED = ("SQ8", "PQ48")
"""What may stand for a vector in the lists of a large index: a byte a number, or 48 bytes."""


def measure(setting: Setting) -> Measured:
    """Build by both, search by both in turn, and hold what the graph finds against all vectors."""
    folder = setting.place("vector-search")
    vectors, queries = write_clustered(folder, setting.vectors, setting.queries)
    given: dict[str, Any] = {
        "vectors": str(vectors),
        "queries": str(queries),
        "folder": str(folder),
    }
    both = (
        Contender(OWN, "index_llmpipe", setting, **given),
        Contender(PLAIN, "index_plain", setting, **given),
    )
    measured = Measured("Index and search")
    rows, found = [], {}
    with together(*both):
        for factory in (EXACT, GRAPH):
            building = medians(in_turn(both, 1, "build", factory=factory))
            in_turn(both, 1, "search", factory=factory)  # pages of the file come into memory
            replies = in_turn(both, setting.rounds, "search", factory=factory)
            found[factory] = {name: each[0] for name, each in replies.items()}
            searching = medians(replies)
            ratio = searching[OWN] / searching[PLAIN]
            rows += [_row(f"{factory}: build", building), _row(f"{factory}: one search", searching)]
            measured.targets.append(
                Target(f"{factory}: a search, llmpipe ÷ FAISS", ratio, most=1.1)
            )
            measured.figures[factory] = {"build": building, "search": searching, "ratio": ratio}
        compressed = _compressed(both[0], setting, found[EXACT][PLAIN])
    recalls = {name: _recall(found[GRAPH][name], found[EXACT][PLAIN]) for name in (OWN, PLAIN)}
    rows.append((f"{GRAPH}: recall@10", f"{recalls[OWN]:.4f}", f"{recalls[PLAIN]:.4f}", ""))
    measured.targets.append(Target(f"{GRAPH}: recall@10 against all", recalls[OWN], least=0.98))
    measured.figures["recall_at_10"] = recalls
    title = f"{setting.vectors:,} clustered vectors of {DIMENSION} dimensions"
    measured.tables.append(Table(title, ("", OWN, PLAIN, f"{OWN} ÷ {PLAIN}"), rows))
    measured.tables.append(_compressed_table(compressed))
    measured.figures["compressed"] = compressed
    return measured


def _compressed(own: Contender, setting: Setting, exact: Reply) -> dict[str, dict[str, float]]:
    """Measure what lists of compressed vectors find, and take, by factory."""
    found = {}
    for encoding in COMPRESSED:
        factory = f"IVF{4 * math.isqrt(setting.vectors)},{encoding}"
        built = own.ask("build", factory=factory)
        searched = own.ask("search", factory=factory)
        found[factory] = {
            "build": built["seconds"],
            "search": searched["seconds"],
            "recall_at_10": _recall(searched, exact),
            "bytes": built["bytes"],
        }
    return found


def _compressed_table(figures: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [
        (
            factory,
            seconds(of["build"]),
            seconds(of["search"]),
            f"{of['recall_at_10']:.4f}",
            f"{of['bytes'] / 1e6:.1f} MB",
        )
        for factory, of in figures.items()
    ]
    heads = ("", "build", "one search", "recall@10", "file")
    return Table("The same in lists, compressed (llmpipe)", heads, rows)


def _row(what: str, taken: dict[str, float]) -> tuple[str, ...]:
    return what, seconds(taken[OWN]), seconds(taken[PLAIN]), f"{taken[OWN] / taken[PLAIN]:.2f}"


def _recall(found: Reply, exact: Reply) -> float:
    """Return the part of the true ten nearest that was found, in the mean over the queries."""
    shares = [
        len({*near} & {*true}) / len(true)
        for near, true in zip(found["found"], exact["found"], strict=True)
    ]
    return sum(shares) / len(shares)
