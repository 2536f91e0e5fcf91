"""Compute the vector of every chunk, each distinct text once, with a cache of vectors.

`Backlog.read` finds the texts that are not cached, `embed_backlog` embeds them in shards, and
`write_vectors` writes all vectors from the cache. Only uncached texts are kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpipe.backends.embedders.folder import count_tokens
from llmpipe.errors import StageError
from llmpipe.retrieval.chunks import Chunk, read_chunks
from llmpipe.retrieval.embedder import EmbedderIdentity
from llmpipe.retrieval.reading import Reader
from llmpipe.retrieval.survey import Survey
from llmpipe.retrieval.vector_memory import VectorMemory, text_key

if TYPE_CHECKING:
    from llmpipe.retrieval.embedders import OpenedEmbedder

SHARD = 128
"""How many texts are embedded and cached at a time; a killed run loses at most these."""
UNREAD_ROWS = "unread.npy"
"""The file with the rows that the embedder cannot read; absent if it can read all."""
BLOCK = 4096
"""How many chunks are looked up, and how many vectors are written, at a time."""


@dataclass(slots=True)
class Passage:
    """A text to embed, its length in tokens, and the first place where it occurs."""

    text: str
    tokens: int
    document: str
    start: int


@dataclass(slots=True)
class Backlog:
    """The text keys of all chunks, in order, and the texts that are not cached."""

    keys: list[bytes] = field(default_factory=list)
    missing: dict[bytes, Passage] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        """The number of tokens to embed."""
        return sum(passage.tokens for passage in self.missing.values())

    @classmethod
    def read(cls, file: Path, prefix: str, memory: VectorMemory) -> Backlog:
        """Read chunks and find the texts that are not cached.

        ``prefix`` is what the embedder puts before a passage; the keys include it.
        """
        backlog = cls()
        for chunks in _blocks(read_chunks(file)):
            keys = [text_key(prefix + chunk.embedded_text()) for chunk in chunks]
            known = memory.known(keys)
            for key, chunk in zip(keys, chunks, strict=True):
                if key not in known:
                    backlog.missing.setdefault(key, _passage(chunk))
            backlog.keys += keys
        return backlog

    def count_again(self, tokenizer: Any, identity: EmbedderIdentity) -> None:
        """Count the tokens of the texts with the embedder's own tokenizer.

        Raises:
            StageError: a text is longer than the embedder takes, and would be cut silently.
        """
        passages = list(self.missing.values())
        texts = [identity.passage_prefix + passage.text for passage in passages]
        for passage, count in zip(passages, count_tokens(tokenizer, texts), strict=True):
            if count > identity.max_tokens:
                raise StageError(
                    f"{passage.document}: the chunk at character {passage.start} has {count} "
                    f"tokens; {identity.model} takes {identity.max_tokens}",
                    hint="lower `tokens` of the chunk stage, or name this model there",
                )
            passage.tokens = count


def read_as(reader: Reader, file: Path) -> Survey:
    """Survey the chunks of a file with the tokenizer of their embedder."""
    survey = Survey()
    for chunks in _blocks(read_chunks(file)):
        for chunk, reading in zip(chunks, reader.read([c.text for c in chunks]), strict=True):
            survey.add(reading, chunk)
    return survey


def write_unread(folder: Path, rows: Sequence[int]) -> None:
    """Write the rows that the embedder cannot read; no file if there are none."""
    import numpy as np

    if rows:
        np.save(folder / UNREAD_ROWS, np.array(rows, np.uint32))


def embed_backlog(
    backlog: Backlog,
    embedder: OpenedEmbedder,
    memory: VectorMemory,
    progress: Callable[[int], None],
) -> None:
    """Embed uncached texts, those of similar length together, and cache their vectors.

    Raises:
        StageError: as `OpenedEmbedder.embed_passages`.
    """
    keys = sorted(backlog.missing, key=lambda key: -backlog.missing[key].tokens)
    for begin in range(0, len(keys), SHARD):
        shard = keys[begin : begin + SHARD]
        vectors = embedder.embed_passages(
            [backlog.missing[key].text for key in shard],
            lambda done, begin=begin: progress(begin + done),  # type: ignore[misc]
            counted=True,
        )
        memory.put(shard, vectors)


def write_vectors(path: Path, keys: Sequence[bytes], memory: VectorMemory) -> int:
    """Write the vectors of all keys, in order, as one float32 array; return its width.

    Raises:
        StageError: a vector is missing, or the vectors differ in width.
    """
    import numpy as np

    array: Any = None
    for begin in range(0, len(keys), BLOCK):
        block = keys[begin : begin + BLOCK]
        found = memory.get(block)
        rows = [found.get(key) for key in block]
        if any(row is None for row in rows):
            raise StageError(f"{memory.path} was damaged while it was in use", hint="run again")
        widths = {row.shape[0] for row in rows if row is not None}
        if array is None:
            shape = (len(keys), min(widths))
            array = np.lib.format.open_memmap(path, "w+", np.float32, shape)  # type: ignore[no-untyped-call]
        widths.add(array.shape[1])
        if len(widths) > 1:
            raise StageError(
                f"{memory.path} contains vectors of several widths: {sorted(widths)}",
                hint="the endpoint's model has changed: remove the file, and run again",
            )
        array[begin : begin + len(block)] = rows
    array.flush()
    return int(array.shape[1])


def _passage(chunk: Chunk) -> Passage:
    return Passage(chunk.embedded_text(), chunk.tokens, chunk.document, chunk.start)


def _blocks(chunks: Iterator[Chunk]) -> Iterator[list[Chunk]]:
    block: list[Chunk] = []
    for chunk in chunks:
        block.append(chunk)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block
