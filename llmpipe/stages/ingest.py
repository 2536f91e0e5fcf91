"""Read files as documents: text with its title, sections, pages and metadata.

Formats: Markdown, plain text, HTML, PDF, Word, PowerPoint, Excel, reStructuredText, notebooks,
e-books, messages, and files of rows. In a folder, files are selected by extension. A file that is
named directly or by a pattern is read as text if it is text, unless it has another format. Skipped
files are counted and named, and so are parts of a file that are not in its text. Files are
untrusted: nothing in them is run or fetched, and no link leads out of a folder. Not covered:
scanned pages, pictures, web pages.
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
    EstimateContext,
    Estimates,
    Finding,
    Input,
    Needs,
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
"""How many duplicates and skipped files the metrics name; all are counted."""

REMARKS = 20
"""How many files are warned about; the metrics name more."""

NAMED = 5
"""How many items of a kind a message names."""


class IngestConfig(StageConfig, frozen=True, kw_only=True):
    """The files and folders to read."""

    paths: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """What to read: files, folders, patterns such as `./docs/**/*.md`, `pkg://` addresses, and
    other stages' files."""
    exclude: tuple[str, ...] = ()
    """Documents to leave out, as patterns of their ids (`docs/drafts/*`); `*` also matches a `/`.
    """
    on_error: Literal["fail", "skip"] = "fail"
    """What to do with a file that is damaged, encrypted, binary, too large, without text, or whose
    rows lack the columns: fail the stage, or skip the file with a warning. Columns that no file of
    rows has always fail the stage."""
    columns: Columns | None = None
    """The columns of CSV, TSV, JSONL and JSON files with the text; known formats need none."""
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] = 100_000_000
    """Maximum size of a file."""
    max_memory: Annotated[int, msgspec.Meta(ge=1)] = 2_000_000_000
    """Bytes of memory for reading one file. Files under a megabyte get less, down to 15 %. A file
    that needs more counts as too large."""
    max_seconds: Annotated[int, msgspec.Meta(ge=1)] = 120
    """CPU seconds for reading a file of a megabyte. Larger files get more time in proportion,
    smaller ones less, down to a third. A file that takes longer counts as too large."""
    allow_outside: bool = False
    """Allow paths outside the spec's folder, and links that lead out of a folder."""
    dedup: bool = True
    """Of documents with the same text, keep only the first by id."""


class Ingest(StageDefaults, Estimates):
    """The stage kind ``ingest``."""

    Config = IngestConfig
    VERSION = 8
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
        """Check that the named columns exist, over all files of rows."""
        if config.columns is None:
            return []
        named = list(named_columns(("columns",), config.columns, optional=("metadata",)))
        files = files_of_rows(config.paths, config.exclude, folder)
        if config.on_error == "fail":  # every file must have them
            return [finding for file in files for finding in absent([file], named)]
        return list(absent(files, named))

    @staticmethod
    def fingerprint(config: IngestConfig) -> Mapping[str, Any]:
        # A mapping keeps the paths as they are written: the documents are named after them.
        paths = {str(i): path for i, path in enumerate(config.paths)}
        return {**semantic_fields(config), "paths": paths}

    @staticmethod
    def tools(config: IngestConfig) -> tuple[str, ...]:
        return tuple(sorted({tool for path in config.paths for tool in _tools_for(path)}))

    @staticmethod
    def needs(config: IngestConfig, inputs: Mapping[str, Given]) -> tuple[Need, ...]:
        return packages(*sorted(_read_by(config, inputs)))

    @staticmethod
    def estimate(
        config: IngestConfig, inputs: Mapping[str, Given], asked: EstimateContext
    ) -> Needs:
        from llmpipe.stages.document_estimates import ingest_estimate

        return ingest_estimate(config, inputs, asked)

    @staticmethod
    def run(ctx: StageContext[IngestConfig]) -> StageResult:
        """Find the files, convert each, drop duplicates, write.

        Raises:
            StageError: A path does not exist or is not allowed, a file cannot be read, its rows
                lack the columns, or no document is left.
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
    """The reason why a file could not be read, by id."""
    copies: dict[str, str] = field(default_factory=dict)
    """The id of the original, by the id of the copy."""
    remarks: dict[str, str] = field(default_factory=dict)
    """What was guessed about a file, or is not in its text, by id."""
    blank_rows: int = 0


def _tools_for(path: str) -> tuple[str, ...]:
    """Return the tools that may read the files of a path; a folder may hold any format."""
    known = FORMATS.get(Path(path).suffix.lower())
    if known and not path.endswith("/"):
        return known.distributions
    return tuple(tool for format_ in FORMATS.values() for tool in format_.distributions)


def _read_by(config: IngestConfig, inputs: Mapping[str, Given]) -> set[str]:
    """Return the distributions that read the files, as far as known before the run."""
    endings = set()
    there = {}
    folder = Path()
    for i, text in enumerate(config.paths):
        given = inputs[f"paths.{i}"]
        if given.path and given.path.exists():
            there[text] = Artifact(given.path, given.type, "", text, pattern=given.pattern)
            folder = given.folder
        else:
            files = getattr(given.config, "outputs", {})  # a command names its outputs
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
    """Yield the documents of all readable files; the tally records the others."""
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
    """Warn about a file and record the warning; after `REMARKS` files, only record it."""
    tally.remarks[name] = "; ".join(filter(None, (tally.remarks.get(name), remark)))
    if len(tally.remarks) <= REMARKS:
        ctx.warn(f"{name}: {remark}")


def _unreadable(skipped: Mapping[str, StageError]) -> StageError:
    """Report all unreadable files at once."""
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
    """Check that the columns that the spec names exist in some rows, if there are rows.

    Raises:
        StageError: No file of rows has the columns of the text, the title and the id.
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
