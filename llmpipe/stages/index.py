"""Make embeddings searchable: an index of the vectors, one of the words, and the passages.

The artifact is complete: it contains the documents, the chunks, the identity of the embedder, and
the SHA-256 of each file. It is always built as a whole, on one thread, in the order of the chunks.
That is fast compared with embedding, which is cached per chunk, and an updated index equals a new
one. `llmpipe.retrieval.search` searches it.

Not covered: adding to an index in place, and vector stores that several machines share.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from llmpipe.contracts import (
    EstimateContext,
    Estimates,
    FieldPath,
    Finding,
    Input,
    Needs,
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
    """The embeddings to index, and the types of index."""

    embeddings: str
    """The embeddings to index: a stage that made them, or a folder."""
    factory: str = "auto"
    """How vectors are searched, as a FAISS factory string (`Flat`, `HNSW32`, `IVF1024,SQ8` …).
    `auto` compares all vectors up to 100,000 chunks, then uses `HNSW32`, and above two million
    `IVF…,SQ8`."""
    ef_search: Annotated[int, Meta(ge=1)] | None = None
    """Candidates during a search of an HNSW index. More find more, but take longer."""
    nprobe: Annotated[int, Meta(ge=1)] | None = None
    """Lists that a search of an IVF index visits. More find more, but take longer."""
    bm25: bool = True
    """Index the words too, to find names, numbers and codes as they are written. Compounds such as
    `foo.bar` are found as a whole and in parts; `résumé` also as `resume`, `U.S.A.` as `USA` and
    `100GB` as `100 GB`."""
    language: Language = "english"
    """The language for stop words and stemming; `none` keeps all words as they are."""
    stemming: bool = True
    """Treat forms of a word (*install*, *installing*) as equal, if `language` supports it. Arabic
    and Hebrew words also count without their article or particle."""


class Index(StageDefaults, Estimates):
    """The stage kind ``index``."""

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
                found.append(((field,), f"has no effect: {config.factory} is not of type {kind}"))
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
    def estimate(config: IndexConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
        from llmpipe.stages.document_estimates import index_estimate

        return index_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[IndexConfig]) -> StageResult:
        """Build the index; report its cost and, if it is approximate, its recall.

        Raises:
            StageError: The embeddings are broken, or FAISS refuses the factory string.
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
