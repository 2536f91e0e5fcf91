"""Read files as documents: text with its title, sections, pages and metadata.

Markdown, plain text, HTML, PDF, Word, PowerPoint, Excel, reStructuredText, notebooks, e-books,
messages, and files of rows. From a folder what has one of their endings is taken; what is named
outright or by a pattern is read as text if it is text, never if it is of another format. What is
passed over is counted and named, and so are the parts of a file that are not in its text. Files are
untrusted: nothing in them is run or fetched, and none leads out of its folder. Not covered:
scanned pages, pictures, what is on the web.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from llmpipe.contracts import (
    Artifact,
    Finding,
    Input,
    Output,
    Ports,
    StageConfig,
    StageContext,
    StageDefaults,
    StageResult,
    semantic_fields,
)
from llmpipe.documents.confined import Limits, answers
from llmpipe.documents.convert import FORMATS, PLAIN, Options
from llmpipe.documents.foreign import named_endings, numbered
from llmpipe.documents.model import Document, write_documents
from llmpipe.documents.rows import Columns
from llmpipe.errors import StageError
from llmpipe.formats.first_rows import absent, named_columns
from llmpipe.formats.row import MissingColumnError
from llmpipe.needs import Given, Need, packages
from llmpipe.stages.ingest_files import Collection, collect, files_of_rows

LISTED = 100
"""How many duplicates and skipped files the metrics name; all of them are counted."""

REMARKS = 20
"""How many files are warned of; the metrics name more."""

NAMED = 5
"""How many things of a kind a message names."""


class IngestConfig(StageConfig, frozen=True, kw_only=True):
    """Files and folders to documents."""

    paths: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """What to read: files, folders, patterns such as `./docs/**/*.md`, `pkg://` addresses, and
    files that other stages make."""
    exclude: tuple[str, ...] = ()
    """Documents to leave out, by patterns of their ids (`docs/drafts/*`); `*` also fits a `/`."""
    on_error: Literal["fail", "skip"] = "fail"
    """What a file does that is damaged, encrypted, binary, too large, without text, or whose rows
    lack the columns: fail the stage, or be told of and counted. Columns that no file of rows has
    fail it always."""
    columns: Columns | None = None
    """Which columns of CSV, TSV, JSONL and JSON files hold the text; known formats need none."""
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 100_000_000
    """The size of the largest file that is read."""
    max_memory: Annotated[int, msgspec.Meta(ge=1)] = 2_000_000_000
    """Bytes of memory that reading one file may take. Files under a megabyte may take less, down to
    15 %. A file that takes more is treated as one that is too large."""
    max_seconds: Annotated[int, msgspec.Meta(ge=1)] = 120
    """CPU seconds that reading a file of a megabyte may take. Larger files may take longer in
    proportion, smaller ones less, down to a third. A file that takes longer is treated as one that
    is too large."""
    allow_outside: bool = False
    """Take paths that lie outside of the spec's folder, and links that lead out of a folder."""
    dedup: bool = True
    """Keep only the first, by id, of documents with the same text."""


class Ingest(StageDefaults):
    """The ``ingest`` kind."""

    Config = IngestConfig
    VERSION = 7
    determinism = "exact"
    cpus = 1

    @staticmethod
    def ports(config: IngestConfig) -> Ports:
        inputs = {
            f"paths.{i}": Input(("paths", i), path, ("file", "records", "dataset"), glob=True)
            for i, path in enumerate(config.paths)
        }
        return Ports(inputs, {"documents": Output("documents")}, default="documents")

    @staticmethod
    def review(config: IngestConfig, folder: Path) -> list[Finding]:
        """Check that the named columns exist, in all files of rows together."""
        if config.columns is None:
            return []
        named = list(named_columns(("columns",), config.columns, optional=("metadata",)))
        files = files_of_rows(config.paths, config.exclude, folder)
        if config.on_error == "fail":  # each must have them
            return [finding for file in files for finding in absent([file], named)]
        return list(absent(files, named))

    @staticmethod
    def fingerprint(config: IngestConfig) -> Mapping[str, Any]:
        # As a mapping the paths stay as they are written: the documents are called after them.
        paths = {str(i): path for i, path in enumerate(config.paths)}
        return {**semantic_fields(config), "paths": paths}

    @staticmethod
    def tools(config: IngestConfig) -> tuple[str, ...]:
        return tuple(sorted({tool for path in config.paths for tool in _tools_for(path)}))

    @staticmethod
    def needs(config: IngestConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return packages(*sorted(_read_by(config, inputs)))

    @staticmethod
    def run(ctx: StageContext[IngestConfig]) -> StageResult:
        """Find the files, convert each, drop what is there twice, write.

        Raises:
            StageError: a path leads nowhere or too far, a file cannot be read, its rows lack the
                columns, or nothing is left.
        """
        found = _collected(ctx)
        tally = Tally()
        documents = sorted(_converted(ctx, found, tally), key=lambda document: document.id)
        if len(tally.remarks) > REMARKS:
            ctx.warn(f"{len(tally.remarks) - REMARKS} more files have remarks: see the metrics")
        if tally.skipped and ctx.config.on_error == "fail":
            raise _unreadable(tally.skipped)
        _check_columns(ctx, documents, tally)
        _check_ids(documents)
        kept = list(_without_copies(documents, tally)) if ctx.config.dedup else documents
        if not kept:
            raise _nothing_left(ctx, found, tally)
        output = ctx.out / "documents.jsonl"
        write_documents(output, kept)
        return StageResult(
            {"documents": output}, _metrics(kept, found, tally), _summary(kept, found, tally)
        )


@dataclass(slots=True)
class Tally:
    """What did not become a document."""

    skipped: dict[str, StageError] = field(default_factory=dict)
    """Why a file could not be read, by id."""
    copies: dict[str, str] = field(default_factory=dict)
    """Of which other document a document was the copy, by id."""
    remarks: dict[str, str] = field(default_factory=dict)
    """What was guessed in a file, or is not in its text, by id."""
    blank_rows: int = 0


def _tools_for(path: str) -> tuple[str, ...]:
    """Name what may read the files of a path; a folder may hold anything."""
    known = FORMATS.get(Path(path).suffix.lower())
    if known and not path.endswith("/"):
        return known.distributions
    return tuple(tool for format_ in FORMATS.values() for tool in format_.distributions)


def _read_by(config: IngestConfig, inputs: Mapping[str, Given]) -> set[str]:
    """Name the distributions that read the files, as far as they are known before the run."""
    endings = set()
    there = {}
    folder = Path()
    for i, text in enumerate(config.paths):
        given = inputs[f"paths.{i}"]
        if given.path and given.path.exists():
            there[text] = Artifact(given.path, given.type, "", text, pattern=given.pattern)
            folder = given.folder
        else:
            files = getattr(given.config, "outputs", {})  # of a command, which names them
            endings.add(Path(files.get(given.output, given.path or "rows.jsonl")).suffix)
    try:
        found = collect(there, config.exclude, folder, allow_outside=True).files
        endings |= {path.suffix for path in found.values()}
    except StageError:  # the stage reports it
        pass
    return {name for end in endings for name in FORMATS.get(end.lower(), PLAIN).distributions}


def _collected(ctx: StageContext[IngestConfig]) -> Collection:
    config = ctx.config
    found = collect(_paths(ctx), config.exclude, ctx.spec_dir, allow_outside=config.allow_outside)
    for pattern in found.idle:
        ctx.warn(f"exclude: {pattern!r} matches no document")
    if not found.files:
        raise _nothing_left(ctx, found, Tally())
    return found


def _paths(ctx: StageContext[IngestConfig]) -> dict[str, Artifact]:
    return {path: ctx.input(f"paths.{i}") for i, path in enumerate(ctx.config.paths)}


def _converted(
    ctx: StageContext[IngestConfig], found: Collection, tally: Tally
) -> Iterator[Document]:
    """Yield the documents of all files that can be read; the tally takes the others."""
    config, files = ctx.config, sorted(found.files.items())
    options, limits = (
        Options(config.columns, config.max_bytes),
        Limits(config.max_memory, config.max_seconds),
    )
    with closing(answers(files, options, limits)) as answered:
        for done, (name, _) in enumerate(files):
            ctx.progress(done, len(files), name)
            answer = next(answered)
            for remark in answer.remarks:
                _remark(ctx, tally, name, remark)
            error = answer.error
            if isinstance(error, StageError):
                tally.skipped[name] = error
                if config.on_error == "skip":
                    ctx.warn(f"skipped: {error.message}")
            elif error is not None:
                raise error
            yield from _shown(ctx, tally, answer.documents)


def _shown(
    ctx: StageContext[IngestConfig], tally: Tally, documents: Sequence[Document]
) -> Iterator[Document]:
    """Yield the documents that have text; the tally counts the others."""
    for document in documents:
        _warn_of_empty_pages(ctx, document)
        if document.text.strip():
            yield document
        else:
            tally.blank_rows += 1


def _remark(ctx: StageContext[IngestConfig], tally: Tally, name: str, remark: str) -> None:
    """Warn about a file and record the warning; too many are only recorded."""
    tally.remarks[name] = "; ".join(filter(None, (tally.remarks.get(name), remark)))
    if len(tally.remarks) <= REMARKS:
        ctx.warn(f"{name}: {remark}")


def _unreadable(skipped: Mapping[str, StageError]) -> StageError:
    """Name what cannot be read, all at once: each has to be seen to."""
    first, *others = skipped.values()
    told = [error.message for error in others[:NAMED]]
    if len(others) > NAMED:
        told.append(f"and {len(others) - NAMED} more files")
    hints = [*filter(None, [first.hint]), *told]
    if not all(isinstance(error, MissingColumnError) for error in skipped.values()):
        hints.append("or skip such files: on_error: skip")
    return StageError(first.message, hint="\n".join(hints))


def _warn_of_empty_pages(ctx: StageContext[IngestConfig], document: Document) -> None:
    empty = sum(not document.text[page.start : page.end].strip() for page in document.pages)
    if 2 * empty > len(document.pages):
        ctx.warn(f"{document.id}: {empty} of its {len(document.pages)} pages have no text (scans?)")


def _check_columns(
    ctx: StageContext[IngestConfig], documents: Sequence[Document], tally: Tally
) -> None:
    """Check that what the spec names are columns of some rows, if there are any.

    Raises:
        StageError: no file of rows has the columns of the text, the title and the id.
    """
    columns, rows = ctx.config.columns, [document for document in documents if document.row]
    if columns is None:
        return
    misfits = {
        id_: error for id_, error in tally.skipped.items() if isinstance(error, MissingColumnError)
    }
    if misfits and not rows:
        raise _unreadable(misfits)
    there = {name for document in rows for name in document.metadata}
    for name in columns.metadata or ():
        if rows and name not in there:
            ctx.warn(f"columns.metadata: no row has a value in {name!r}")


def _check_ids(documents: list[Document]) -> None:
    for one, other in pairwise(documents):
        if one.id == other.id:
            raise StageError(
                f"two documents are called {one.id}",
                hint="the column under `columns.id` must differ from row to row",
            )


def _without_copies(documents: list[Document], tally: Tally) -> Iterator[Document]:
    first: dict[bytes, str] = {}
    for document in documents:
        digest = hashlib.sha256(document.text.encode()).digest()
        original = first.setdefault(digest, document.id)
        if original == document.id:
            yield document
        else:
            tally.copies[document.id] = original


def _nothing_left(ctx: StageContext[IngestConfig], found: Collection, tally: Tally) -> StageError:
    reasons = [
        *([f"no documents: {named_endings(found.passed_over)}"] if found.passed_over else []),
        *([f"broken links: {_named(found.dangling)}"] if found.dangling else []),
        *([f"excluded: {found.excluded}"] if found.excluded else []),
        *([f"rows without text: {tally.blank_rows}"] if tally.blank_rows else []),
        *(f"skipped: {error.message}" for error in list(tally.skipped.values())[:NAMED]),
    ]
    return StageError(
        f"no document is left of {', '.join(ctx.config.paths)}",
        hint="; ".join(reasons) or "there is no file",
    )


def _metrics(kept: list[Document], found: Collection, tally: Tally) -> dict[str, Any]:
    return {
        "documents": len(kept),
        "characters": sum(len(document.text) for document in kept),
        "pages": sum(len(document.pages) for document in kept),
        "sections": sum(len(document.sections) for document in kept),
        "media_types": dict(sorted(Counter(document.media_type for document in kept).items())),
        "files": len(found.files),
        "skipped": len(tally.skipped),
        "skipped_files": _listed({name: e.message for name, e in tally.skipped.items()}),
        "passed_over": dict(sorted(found.passed_over.items())),
        "dangling": len(found.dangling),
        "dangling_links": found.dangling[:LISTED],
        "excluded": found.excluded,
        "blank_rows": tally.blank_rows,
        "remarks": len(tally.remarks),
        "remarks_on": _listed(tally.remarks),
        "duplicates": len(tally.copies),
        "duplicates_of": _listed(tally.copies),
    }


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _listed(names: Mapping[str, str]) -> dict[str, str]:
    return dict(list(names.items())[:LISTED])


def _summary(kept: list[Document], found: Collection, tally: Tally) -> str:
    """Summarize in one line what was read and what was not."""
    characters = sum(len(document.text) for document in kept)
    pages = sum(len(document.pages) for document in kept)
    parts = [numbered(len(kept), "document", "documents")]
    if found.passed_over:
        files = numbered(found.passed_over.total(), "file of another kind", "files of other kinds")
        parts.append(f"{files} skipped ({named_endings(found.passed_over)})")
    if found.dangling:
        links = numbered(len(found.dangling), "broken link", "broken links")
        parts.append(f"{links} skipped ({_named(found.dangling)})")
    parts.append(numbered(characters, "character", "characters"))
    parts += [numbered(pages, "page", "pages")] if pages else []
    left = [
        numbered(count, one, many)
        for count, one, many in (
            (len(tally.copies), "copy", "copies"),
            (len(tally.skipped), "file skipped", "files skipped"),
            (tally.blank_rows, "row without text", "rows without text"),
        )
        if count
    ]
    return ", ".join(parts) + (f"; left out: {', '.join(left)}" if left else "")
