"""Make embeddings searchable: an index of the vectors, one of the words, and the passages.

The artifact stands alone: it carries the documents, the chunks, who the embedder was, and the
SHA-256 of each of its files. It is made whole every time, on one thread and in the chunks' own
order: that is quick beside the embedding, which is remembered chunk by chunk, and an index after an
update is the very index that a fresh build makes. `llmpipe.retrieval.search` searches it.

Not covered: adding to an index in place, and stores that several machines share.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from llmpipe.contracts import (
    FieldPath,
    Finding,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
)
from llmpipe.needs import Given, Need, packages
from llmpipe.retrieval.bm25 import Bm25Settings, Language
from llmpipe.retrieval.index import Built, IndexSettings, build_index


class IndexConfig(StageConfig, frozen=True, kw_only=True):
    """What to index, and how."""

    embeddings: str
    """The embeddings to index: a stage that made them, or such a folder."""
    factory: str = "auto"
    """How vectors are searched, as a FAISS factory string (`Flat`, `HNSW32`, `IVF1024,SQ8` …).
    `auto` compares each up to 100,000 chunks, then takes `HNSW32`, above two million `IVF…,SQ8`."""
    ef_search: Annotated[int, Meta(ge=1)] | None = None
    """Candidates that a search of an HNSW index keeps in view; more find more and take longer."""
    nprobe: Annotated[int, Meta(ge=1)] | None = None
    """Lists that a search of an IVF index looks into; more find more and take longer."""
    bm25: bool = True
    """Index the words too, so that names, numbers and codes are found as they are written. Words
    that marks join, such as `foo.bar`, are found whole and in parts; `résumé` also as `resume`,
    `U.S.A.` as `USA` and `100GB` as `100 GB`."""
    language: Language = "english"
    """The language whose stop words and endings the words lose; `none` keeps all as they are."""
    stemming: bool = True
    """Let forms of a word (*install*, *installing*) count as one, as far as `language` knows them.
    An Arabic or Hebrew word counts without its article or particle too."""


class Index(StageDefaults):
    """See the module's docstring."""

    Config = IndexConfig
    VERSION = 3
    determinism = "same-machine"
    cpus = 1

    @staticmethod
    def ports(config: IndexConfig) -> Ports:
        inputs = {"embeddings": Input(("embeddings",), config.embeddings, ("embeddings",))}
        return Ports(inputs, {"index": Output("index", origin="embeddings")}, default="index")

    @staticmethod
    def problems(config: IndexConfig) -> list[tuple[FieldPath, str]]:
        found: list[tuple[FieldPath, str]] = []
        for field, kind in (("ef_search", "HNSW"), ("nprobe", "IVF")):
            if getattr(config, field) and kind not in config.factory and config.factory != "auto":
                found.append(((field,), f"has no effect: {config.factory} is no {kind} index"))
        return found

    @staticmethod
    def tools(config: IndexConfig) -> tuple[str, ...]:
        words = ("bm25s", "regex", "PyStemmer") if config.stemming else ("bm25s", "regex")
        return ("faiss-cpu", *(words if config.bm25 else ()))

    @staticmethod
    def needs(config: IndexConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return packages("numpy", *Index.tools(config))

    @staticmethod
    def preflight(config: IndexConfig, folder: Path, memo: Path) -> list[Finding]:
        from llmpipe.backends.faiss import AUTO, EXAMPLES, factory_problem

        if config.factory == AUTO:
            return []
        try:
            problem = factory_problem(config.factory)
        except ImportError:
            message = "faiss is not installed: cannot check `factory`"
            return [Finding(("factory",), message, "pip install 'llmpipe[rag]'", missing=True)]
        return [Finding(("factory",), problem, f"for example: {EXAMPLES}")] if problem else []

    @staticmethod
    def run(ctx: StageContext[IndexConfig]) -> StageResult:
        """Build the index and report what it cost and, where it is approximate, what it finds.

        Raises:
            StageError: the embeddings are broken, or FAISS refuses the factory string.
        """
        config, target = ctx.config, ctx.out / "index"
        words = Bm25Settings(language=config.language, stemming=config.stemming)
        settings = IndexSettings(
            factory=config.factory,
            ef_search=config.ef_search,
            nprobe=config.nprobe,
            bm25=words if config.bm25 else None,
        )
        built = build_index(ctx.input("embeddings").path, target, settings, ctx.progress)
        metrics = _metrics(built, target)
        return StageResult({"index": target}, metrics, _summary(metrics))


def _metrics(built: Built, folder: Path) -> dict[str, Any]:
    """Return the metrics; ``recall_at_10`` is included if a search can miss something."""
    manifest = built.manifest
    metrics: dict[str, Any] = {
        "chunks": manifest.chunks,
        "documents": manifest.documents,
        "dimension": manifest.dimension,
        "factory": manifest.factory,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "seconds": built.seconds,
    }
    if built.recall is not None:
        metrics["recall_at_10"] = round(built.recall, 4)
    return metrics


def _summary(metrics: dict[str, Any]) -> str:
    text = "{chunks} chunks of {documents} documents, {factory}".format(**metrics)
    found = metrics.get("recall_at_10")
    return text if found is None else f"{text}, finds {found:.1%} of the ten nearest"
