"""What the kinds that read rows and documents, embed them and search them take before they run.

These kinds read their input piece by piece; what they keep of it grows with its bytes. Before the
input has been made, its size is not known, and a note says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmpipe.backends.faiss import resolve_factory
from llmpipe.contracts import EstimateContext, Needs
from llmpipe.estimate.loaded import PLAIN, TORCH, Parts, heaviest, in_llama_cpp, together
from llmpipe.estimate.weights import Unknown, encoder_of, find_weights
from llmpipe.formats.row_count import estimated_rows
from llmpipe.needs import Given
from llmpipe.retrieval.needs import engine_of
from llmpipe.stages.curate.steps import Language

if TYPE_CHECKING:
    from llmpipe.stages.chunk import ChunkConfig
    from llmpipe.stages.curate import CurateConfig
    from llmpipe.stages.embed import EmbedConfig
    from llmpipe.stages.format import FormatConfig
    from llmpipe.stages.index import IndexConfig
    from llmpipe.stages.ingest import IngestConfig
    from llmpipe.stages.rag.config import RagConfig

NUMBER = 4
"""Bytes of a number of a vector."""

ROW = 60
"""Bytes that a format stage keeps in memory of a row: 45, and lists of positions."""

CURATED_ROW = 300
"""Bytes that a curate stage keeps in memory of a row: its place, and its sketch."""

LANGUAGE_MODELS = 900_000_000
"""Bytes of lingua's large models, which a stage loads once its small ones are not sure."""

TEXT = 2.5
"""How many bytes documents take in memory for each byte of their text."""

READER = 12_000_000
"""The process that reads a file of text; a PDF or Word file takes more."""

WORDS = 5.0
"""How many bytes an index of words takes while it is built, for each byte of text."""

TOKENIZER = 15_000_000
"""A tokenizer with its vocabulary, and the splitter."""

ONNX = 180_000_000
"""A process that has loaded onnxruntime."""

EMBEDDING = 150_000_000
"""What a batch of texts takes while it is embedded, and sentence-transformers on top of torch."""


def format_estimate(
    config: FormatConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what it takes: the rows' texts lie in a file, a few bytes of each in memory."""
    rows = [given for port, given in inputs.items() if port != "tokenizer"]
    return _of_rows(rows, TORCH if config.max_tokens else PLAIN, each=ROW, copies=2)


def curate_estimate(
    config: CurateConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what it takes: the rows' texts lie in files, some hundred bytes of each in memory."""
    tells = any(isinstance(step, Language) for step in config.steps)
    models = LANGUAGE_MODELS if tells else 0
    return _of_rows([*inputs.values()], PLAIN + models, each=CURATED_ROW, copies=3)


def _of_rows(inputs: Sequence[Given], process: int, *, each: int, copies: int) -> Needs:
    """Return what a process takes that keeps some bytes of ``each`` row in memory.

    Its files hold ``copies`` of the input while it runs. Without a known number of rows nothing is
    said of memory: a guess could refuse what easily fits.
    """
    size = _size(inputs)
    if size is None:
        return _later("the rows")
    counts = [_rows(given) for given in inputs]
    if None in counts:
        note = "memory is not known: the number of rows is not"
        return Needs(disk=size, temporary=copies * size, notes=(note,))
    parts = {"process": process, "rows": each * sum(filter(None, counts))}
    return Needs(memory=sum(parts.values()), disk=size, temporary=copies * size, parts=parts)


def _rows(given: Given) -> int | None:
    """Return about how many rows an input has, as its stage counted them or its file begins."""
    kept = given.metrics.get("kept", given.metrics.get("rows"))
    if isinstance(kept, Mapping):
        kept = kept.get(given.output)
    if isinstance(kept, int) and given.output != "rejects":
        return kept
    return None if given.path is None else estimated_rows(given.path)


def ingest_estimate(
    config: IngestConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what it takes: the process that reads one file, and the text of all documents."""
    size = _size(inputs.values())
    if size is None:
        return _later("the files")
    parts = {"process": PLAIN, "reader": READER, "documents": int(TEXT * size)}
    note = (
        "documents are taken to hold as much text as their files have bytes; reading one that is "
        f"not plain text may take up to {config.max_memory / 1e9:.1f} GB for a while (max_memory)"
    )
    return Needs(memory=sum(parts.values()), disk=size, parts=parts, notes=(note,))


def chunk_estimate(
    config: ChunkConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what it takes: one document at a time, and the tokenizer."""
    size = inputs["documents"].size
    if size is None:
        return _later("the documents")
    parts = {"process": PLAIN, "tokenizer": TOKENIZER}
    overlap = 1 + config.overlap / (config.tokens - config.overlap)
    return Needs(memory=sum(parts.values()), disk=int(size * (1 + overlap)), parts=parts)


def embed_estimate(
    config: EmbedConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return what it takes: the model, a batch, the texts without a vector, and the vectors."""
    chunks = inputs["chunks"]
    parts: Parts = {"process": PLAIN}
    width = config.dimensions
    if config.engine != "openai":
        encoder = encoder_of(inputs["model"])
        if isinstance(encoder, Unknown):
            return Needs(notes=(f"memory is not known: {encoder.reason}",))
        width = encoder.width
        parts = _embedder(config.engine, encoder.stored, inputs.get("weights"))
    if chunks.size is None:
        return _later("the chunks", memory=sum(parts.values()))
    parts["texts"] = chunks.size
    known = chunks.metrics.get("chunks")
    if not isinstance(known, int) or width is None:
        told = "the number of chunks" if width else "the length of the endpoint's vectors"
        note = f"disk is not known: {told} is not known"
        return Needs(memory=sum(parts.values()), parts=parts, notes=(note,))
    vectors = known * width * NUMBER
    outputs = {"vectors": vectors, "texts": chunks.size}
    return Needs(
        memory=sum(parts.values()),
        disk=sum(outputs.values()),
        parts=parts,
        outputs=outputs,
        notes=("the cache of vectors grows by as much again",),
    )


def index_estimate(
    config: IndexConfig, inputs: Mapping[str, Given], asked: EstimateContext
) -> Needs:
    """Return the size of the index of vectors, and of that of words."""
    given = inputs["embeddings"]
    count, width = given.metrics.get("chunks"), given.metrics.get("dimension")
    if given.size is None or not isinstance(count, int) or not isinstance(width, int):
        return _later("the vectors")
    vectors = count * width * NUMBER
    text = max(0, given.size - vectors)
    index = vectors_in(resolve_factory(config.factory, count), count, width)
    if index is None:
        return Needs(notes=(f"memory and disk of a {config.factory} are not known",))
    parts = {"process": PLAIN + FAISS, "vectors": vectors, "index": index}
    if config.bm25:
        parts["words"] = int(WORDS * text)
    outputs = {"vectors": index, "words and passages": int(PASSAGES * text)}
    return Needs(
        memory=sum(parts.values()), disk=sum(outputs.values()), parts=parts, outputs=outputs
    )


FAISS = 75_000_000
"""What faiss and numpy take."""

PASSAGES = 2.0
"""How many bytes on disk passages and words take for each byte of chunks and documents."""


def vectors_in(factory: str, count: int, width: int) -> int | None:
    """Return the bytes of an index of vectors, or None where the factory string is another one.

    HNSW keeps, for each vector, twice as many links on the lowest level as its number says, and on
    each higher level the number itself, on which a 1/number of the vectors lie (Malkov and
    Yashunin, arXiv:1603.09320); FAISS uses four bytes for a link, and twelve for the level and the
    place of a vector's links.
    """
    kind, _, rest = factory.partition(",")
    if kind == "Flat" and not rest:
        return count * width * NUMBER
    if kind.startswith("HNSW") and kind[4:].isdecimal() and rest in ("", "Flat"):
        links = int(kind[4:])
        return count * (width * NUMBER + 4 * (2 * links + links // (links - 1) + 1) + 12)
    if kind.startswith("IVF") and kind[3:].isdecimal() and rest in ("Flat", "SQ8"):
        each = width * (NUMBER if rest == "Flat" else 1) + 16  # its row, and its place by row
        return count * each + int(kind[3:]) * width * NUMBER
    return None


def rag_estimate(config: RagConfig, inputs: Mapping[str, Given], asked: EstimateContext) -> Needs:
    """Return what answering takes: the embedder, the index, and the generator with its cache."""
    parts: Parts = {"process": PLAIN + FAISS}
    notes: list[str] = []
    index = inputs["index"]
    engine = engine_of(index)
    model = inputs.get("embedder") or _embedders_model(index)
    if engine is None:
        notes.append("the embedder is not counted: the index does not say which one it is")
    elif engine != "openai" and model is not None:
        encoder = encoder_of(model)
        if isinstance(encoder, Unknown):
            notes.append(f"the embedder is not counted: {encoder.reason}")
        else:
            parts = together(parts, _embedder(engine, encoder.stored, None))
    if index.size is None:
        notes.append("the index is not counted: its size is known once it has been made")
    parts["index"] = index.size or 0
    if "generator" in inputs:
        weights = find_weights(inputs["generator"], online=asked.online)
        if isinstance(weights, Unknown):
            return Needs(notes=(f"memory is not known: {weights.reason}",))
        served = in_llama_cpp(
            weights, context=config.generator.context, slots=config.generator.slots
        )
        parts["generator"] = sum(served.values())
    return Needs(memory=sum(parts.values()), parts=heaviest(parts), notes=tuple(notes))


def _embedders_model(index: Given) -> Given | None:
    """Return the model that the index was embedded with, where stages of this spec made it."""
    step: Given | None = index
    while step is not None and "model" not in step.inputs:
        step = next((g for g in step.inputs.values() if g.type in ("index", "embeddings")), None)
    return None if step is None else step.inputs["model"]


def _embedder(engine: str, stored: int, weights: Given | None) -> Parts:
    """Return what a process with an embedder takes."""
    if engine == "onnx":
        size = weights.size if weights is not None and weights.size else stored
        return {"process": ONNX, "model": 2 * size}
    return {"process": TORCH + EMBEDDING, "model": stored}


def _size(inputs: Iterable[Given]) -> int | None:
    """Return the bytes of inputs, or None if one is not here yet."""
    sizes = [given.size for given in inputs]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _later(what: str, **known: Any) -> Needs:
    rest = "disk is" if known else "memory and disk are"
    return Needs(**known, notes=(f"{rest} known once {what} have been made",))
