"""The ingest stage on small files: what becomes a document, what is refused, and what is said."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from document_files import check_parts, docx_bytes, pdf_bytes
from workspace import Workspace

from llmpipe.contracts import Artifact, StageContext, StageResult
from llmpipe.documents import plain
from llmpipe.documents.model import Document, read_documents
from llmpipe.errors import SpecError, StageError
from llmpipe.graph.compile import compile_spec
from llmpipe.graph.sources import LocalGlob, LocalPath
from llmpipe.spec.read import read_spec
from llmpipe.stages.ingest import Ingest, IngestConfig


class Runner:
    """Runs the stage on paths as a spec beside the files would have them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.outputs = 0

    def write(self, name: str, data: str | bytes) -> Path:
        """Write a file below the spec's folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def __call__(self, *paths: str, **fields: Any) -> tuple[StageResult, list[Document]]:
        """Run the stage; return its result and documents."""
        config = msgspec.convert({"kind": "ingest", "paths": paths, **fields}, IngestConfig)
        self.outputs += 1
        out = self.folder.parent / f"out{self.outputs}"
        out.mkdir()
        ctx = StageContext(
            config, "docs", self._inputs(config), out, out, out, out, self.folder, 1, self._hear
        )
        result = Ingest.run(ctx)
        documents = list(read_documents(result.outputs["documents"]))
        for document in documents:
            check_parts(document.text, document.sections, document.pages)
        return result, documents

    def _inputs(self, config: IngestConfig) -> dict[str, Artifact]:
        """Bind the paths as the compiler does."""
        spec = self.folder / "spec.yaml"
        stage = json.dumps({"kind": "ingest", "paths": config.paths})
        spec.write_text(f"version: 1\nname: x\nstages:\n  docs: {stage}\n")
        inputs = {}
        for port, binding in compile_spec(read_spec(spec)).nodes["docs"].bindings.items():
            source = binding.source
            assert isinstance(source, LocalPath | LocalGlob)
            path = source.path if isinstance(source, LocalPath) else source.root
            pattern = None if isinstance(source, LocalPath) else source.pattern
            inputs[port] = Artifact(path, binding.type, "", binding.label, None, pattern)
        return inputs

    def _hear(self, event: Any) -> None:
        if event["event"] == "warning":
            self.warnings.append(event["message"])


@pytest.fixture
def ingest(tmp_path: Path) -> Runner:
    """The stage, and a folder for its files."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Runner(folder)


def ids(documents: list[Document]) -> list[str]:
    """What the documents are called."""
    return [document.id for document in documents]


@pytest.mark.slow
def test_a_folder_of_everything(ingest: Runner) -> None:
    """Every known format is taken, the rest passed over and counted by the ends of names."""
    ingest.write("docs/a.md", "# A\n\nOne.\n\n## B\n\nTwo.\n")
    ingest.write("docs/b.pdf", pdf_bytes([["Page one"], ["Page two"]]))
    ingest.write("docs/sub/c.docx", docx_bytes([(1, "C"), (0, "Three.")]))
    ingest.write("docs/sub/d.HTML", "<h1>D</h1><script>run()</script><p>Four.")
    ingest.write("docs/e.rst", "E\n=\n\nFive.\n")
    ingest.write("docs/f.csv", "text,topic\nSix.,x\n,y\nSeven.,z\n")
    ingest.write("docs/logo.png", b"\x89PNG\0")
    ingest.write("docs/Makefile", "all:\n")
    result, documents = ingest("./docs")
    assert ids(documents) == [
        "docs/a.md", "docs/b.pdf", "docs/e.rst", "docs/f.csv#1", "docs/f.csv#3", "docs/sub/c.docx",
        "docs/sub/d.HTML",
    ]  # fmt: skip
    assert "run()" not in documents[-1].text
    metrics = result.metrics
    assert (metrics["documents"], metrics["files"], metrics["pages"]) == (7, 6, 2)
    assert metrics["characters"] == sum(len(document.text) for document in documents)
    assert metrics["media_types"]["text/csv"] == 2
    assert metrics["passed_over"] == {".png": 1, "Makefile": 1}
    assert metrics["blank_rows"] == 1
    assert result.summary.startswith("7 documents, ")
    assert result.summary.endswith(", 2 pages; left out: 1 row without text")


def test_files_of_other_formats_are_passed_over_and_named(ingest: Runner) -> None:
    """Neither a folder nor a pattern of everything reads them as text; the summary names them."""
    ingest.write("docs/a.md", "# A\n\nText.\n")
    ingest.write("docs/notes.text", "plain words")
    for name in ("b.rtf", "c.rtf", "d.mht", "e.xml", "f.odt", "g.doc", "h.svg"):
        ingest.write(f"docs/{name}", "{\\rtf1 words that look like text}")
    for path in ("./docs", "./docs/*.*", "./docs/*"):
        result, documents = ingest(path)
        assert ids(documents) == ["docs/a.md", "docs/notes.text"]
        assert result.metrics["passed_over"][".rtf"] == 2
        told = "7 files of other kinds skipped (2 .rtf, 1 .doc, 1 .mht, 1 .odt, 1 .svg, 1 .xml)"
        assert result.summary.startswith(f"2 documents, {told}, ")


def test_a_single_file_and_many_endings_in_the_summary(ingest: Runner) -> None:
    """One is singular; up to ten endings are named."""
    ingest.write("docs/a.md", "A")
    ingest.write("docs/b.rtf", "b")
    result, _ = ingest("./docs")
    assert result.summary == "1 document, 1 file of another kind skipped (1 .rtf), 1 character"
    for ending in "abcdefghij":
        ingest.write(f"docs/c.{ending}x", "c")
    result, _ = ingest("./docs")
    named = ", ".join(f"1 .{ending}x" for ending in "abcdefghij")
    assert f", 11 files of other kinds skipped ({named}, 1 other), " in result.summary


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("a.rtf", "words", "Rich Text (RTF)"),
        ("a.txt", "{\\rtf1 words}", "Rich Text (RTF)"),
        ("a.md", "%!PS-Adobe-3.0\n", "PostScript"),
        ("notes", "<?xml version='1.0'?><book><p>words</p></book>", "XML"),
        ("a.html", "From: <Saved by Blink>\r\nMIME-Version: 1.0\r\n", "a saved web page (MHTML)"),
        ("a.xml", "<feed>words</feed>", "XML"),
    ],
)
def test_a_named_file_of_another_format_is_told(
    ingest: Runner, name: str, content: str, what: str
) -> None:
    """By the end of its name or by its first bytes; nothing of it is taken for text."""
    ingest.write(name, content)
    with pytest.raises(StageError) as caught:
        ingest(f"./{name}")
    assert caught.value.message == f"{name} is {what}, which cannot be read"


def test_guesses_are_said(ingest: Runner) -> None:
    """What was guessed of a file is warned of by its name, and kept; a flood is only kept."""
    for at in range(25):
        ingest.write(f"docs/{at:02}.txt", f"Preis: {at} €".encode("cp1252"))
    result, documents = ingest("./docs")
    assert documents[5].text == "Preis: 5 €"
    assert ingest.warnings[0].startswith(
        "docs/00.txt: neither UTF-8 nor marked as anything else: read"
    )
    assert ingest.warnings[20:] == ["5 more files have remarks: see the metrics"]
    assert result.metrics["remarks"] == len(result.metrics["remarks_on"]) == 25


def test_ids_are_paths_below_the_spec(ingest: Runner, tmp_path: Path) -> None:
    """However a file is reached, it is called the same; one from outside by its folder's name."""
    ingest.write("docs/a.md", "a\n")
    (tmp_path / "shared" / "in").mkdir(parents=True)
    (tmp_path / "shared" / "in" / "b.md").write_text("b\n")
    absolute = f"{ingest.folder}/docs/*.md"
    for paths in (
        ["./docs"],
        ["./docs/a.md"],
        ["./**/*.md"],
        [absolute],
        ["./docs", "./docs/a.md"],
    ):
        assert ids(ingest(*paths)[1]) == ["docs/a.md"]
    for path, id_ in (("../shared", "shared/in/b.md"), ("../shared/in/b.md", "in/b.md")):
        assert ids(ingest(path, allow_outside=True)[1]) == [id_]
    packaged = ids(ingest("pkg://llmpipe/documents/*.py")[1])
    assert "documents/model.py" in packaged


def test_two_files_by_one_name(ingest: Runner, tmp_path: Path) -> None:
    """Folders of one name outside of the spec's cannot both be meant."""
    for name in ("one", "two"):
        (tmp_path / name / "docs").mkdir(parents=True)
        (tmp_path / name / "docs" / "a.md").write_text(name)
    with pytest.raises(StageError, match=r"would both be called docs/a\.md"):
        ingest("../one/docs", "../two/docs", allow_outside=True)


def test_exclude_by_id(ingest: Runner) -> None:
    """Patterns of ids leave documents out; one that fits nothing is told of."""
    for name in ("docs/a.md", "docs/drafts/b.md", "docs/drafts/sub/c.md"):
        ingest.write(name, name)
    result, documents = ingest("./docs", exclude=["docs/drafts/*", "docs/old/*"])
    assert ids(documents) == ["docs/a.md"]
    assert result.metrics["excluded"] == 2
    assert ingest.warnings == ["exclude: 'docs/old/*' matches no document"]


def test_copies(ingest: Runner) -> None:
    """The first by id is kept, the others are named; or all are."""
    for name in ("b.md", "a.md", "c.txt"):
        ingest.write(f"docs/{name}", "The same.\n")
    ingest.write("docs/d.md", "Another.\n")
    result, documents = ingest("./docs")
    assert ids(documents) == ["docs/a.md", "docs/d.md"]
    assert result.metrics["duplicates"] == 2
    assert result.metrics["duplicates_of"] == {"docs/b.md": "docs/a.md", "docs/c.txt": "docs/a.md"}
    assert len(ingest("./docs", dedup=False)[1]) == 4


BAD = {
    "scan.pdf": (pdf_bytes([[]]), "has no text: scanned pages need OCR first"),
    "secret.pdf": (pdf_bytes([["x"]], encrypted=True), "is encrypted"),
    "broken.docx": (b"PK\x03\x04word/", "is not a Word document that can be read"),
    "notes.txt": (b"text\0\1\2", "is a binary file, not text"),
    "blank.md": (b"\n\n", "contains no text"),
    "rows.jsonl": (b'{"text": "a"}\n{"text"\n', ":2: not JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read(ingest: Runner, name: str) -> None:
    """It fails the stage by name and reason, or is told of, counted and passed over."""
    data, reason = BAD[name]
    ingest.write("docs/good.md", "good\n")
    ingest.write(f"docs/{name}", data)
    with pytest.raises(StageError) as caught:
        ingest("./docs")
    assert caught.value.message.startswith(f"docs/{name}")
    assert reason in caught.value.message
    assert "on_error: skip" in (caught.value.hint or "")
    result, documents = ingest("./docs", on_error="skip")
    assert ids(documents) == ["docs/good.md"]
    assert result.metrics["skipped"] == 1
    assert reason in result.metrics["skipped_files"][f"docs/{name}"]
    assert any(reason in warning for warning in ingest.warnings)


def test_all_that_cannot_be_read_is_named_at_once(ingest: Runner) -> None:
    """Who has ten broken files need not run ten times."""
    for number in range(8):
        ingest.write(f"docs/{number}.md", "")
    with pytest.raises(StageError) as caught:
        ingest("./docs")
    assert caught.value.message == "docs/0.md contains no text"
    assert "docs/5.md contains no text\nand 2 more files\n" in (caught.value.hint or "")


def test_a_gigabyte_is_refused_unread(ingest: Runner) -> None:
    """By its size, with both figures, in no time."""
    with ingest.write("docs/big.txt", "").open("wb") as file:
        file.truncate(1_000_000_000)
    begun = time.monotonic()
    with pytest.raises(
        StageError, match=r"docs/big\.txt is 1,000 MB; files of up to 100 MB are read"
    ):
        ingest("./docs")
    assert time.monotonic() - begun < 2


def test_a_file_that_takes_too_much_or_crashes_its_reader(
    ingest: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a file like others that cannot be read: named, and the others are read."""
    real = plain.convert

    def behave(data: bytes, label: str) -> Any:
        if data.startswith(b"bomb"):
            return [bytes(data) * 1000 for _ in range(10**9)]
        if data.startswith(b"crash"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(data, label)

    monkeypatch.setattr(plain, "convert", behave)
    for name, text in (("a", "One."), ("b", "bomb" * 50), ("c", "crash"), ("d", "Two.")):
        ingest.write(f"docs/{name}.txt", text)
    result, documents = ingest("./docs", on_error="skip", max_memory=200_000_000)
    assert ids(documents) == ["docs/a.txt", "docs/d.txt"]
    bomb, crash = result.metrics["skipped_files"].values()
    assert bomb.startswith(
        "reading docs/b.txt takes more than 30 MB of memory, the share of `max_m"
    )
    assert crash == "the process that read docs/c.txt ended with SIGSEGV"
    assert ingest.warnings == [f"skipped: {bomb}", f"skipped: {crash}"]
    assert result.summary.endswith("left out: 2 files skipped")
    with pytest.raises(StageError) as caught:
        ingest("./docs", max_memory=200_000_000)
    assert caught.value.message == bomb
    assert "raise `max_memory`" in (caught.value.hint or "")
    assert crash in (caught.value.hint or "")


def test_paths_outside_are_refused_unless_meant(ingest: Runner, tmp_path: Path) -> None:
    """A file beside the spec's folder is named with where it lies."""
    (tmp_path / "private.md").write_text("private\n")
    ingest.write("docs/a.md", "a\n")
    for path in ("../private.md", f"{tmp_path}/private.md", "./docs/../../*.md"):
        with pytest.raises(StageError) as caught:
            ingest("./docs", path)
        assert caught.value.message.startswith(f"{path} is outside the folder of the spec")
        assert "allow_outside" in (caught.value.hint or "")
        assert len(ingest("./docs", path, allow_outside=True)[1]) == 2


@pytest.mark.parametrize("path", ["./docs", "./docs/**/*.md", "./docs/**"])
def test_links_that_lead_nowhere_are_counted_and_named(ingest: Runner, path: str) -> None:
    """Of a disk that is not there all documents were missing, and nothing was said."""
    ingest.write("docs/a.md", "# A\n\nfirst\n")
    (ingest.folder / "docs" / "gone.md").symlink_to("nowhere.md")
    (ingest.folder / "docs" / "round.md").symlink_to("round.md")
    (ingest.folder / "docs" / ".#a.md").symlink_to("somebody@host.1234")
    (ingest.folder / "docs" / "old.md").symlink_to("older.md")
    result, documents = ingest(path, exclude=["docs/old*", "docs/none"])
    assert [document.id for document in documents] == ["docs/a.md"]
    told = "1 document, 2 broken links skipped (docs/gone.md, docs/round.md), "
    assert result.summary.startswith(told)
    assert result.metrics["dangling"] == 2
    assert result.metrics["dangling_links"] == ["docs/gone.md", "docs/round.md"]
    result, _ = ingest(path)
    assert "3 broken links" in result.summary


def test_a_folder_behind_a_dangling_link_is_named(ingest: Runner) -> None:
    """What it would hold is not known; where nothing else is, that is why."""
    ingest.write("docs/a.md", "# A\n\nfirst\n")
    (ingest.folder / "docs" / "manuals").symlink_to("/mnt/not-there")
    result, _ = ingest("./docs/**/*.md", "./docs")
    assert "1 broken link skipped (docs/manuals)" in result.summary
    (ingest.folder / "docs" / "a.md").unlink()
    with pytest.raises(SpecError) as caught:
        ingest("./docs/**/*.md")
    assert caught.value.hint == "broken links there: manuals"


@pytest.mark.parametrize("link", ["docs/link.md", "docs/linked"])
def test_links_that_lead_out_are_refused_by_name(ingest: Runner, tmp_path: Path, link: str) -> None:
    """A link to a file, or a folder of files, elsewhere; one that stays inside is as good as any."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key.md").write_text("secret\n")
    ingest.write("docs/sub/a.md", "a\n")
    (ingest.folder / "docs" / "inner.md").symlink_to("sub/a.md")
    assert ids(ingest("./docs", dedup=False)[1]) == ["docs/inner.md", "docs/sub/a.md"]
    target = tmp_path / "private" / ("key.md" if link.endswith(".md") else "")
    (ingest.folder / link).symlink_to(target)
    with pytest.raises(
        StageError, match=r"^link(ed/key)?\.md in \./docs leads out of it by a link"
    ):
        ingest("./docs")
    assert len(ingest("./docs", allow_outside=True, dedup=False)[1]) == 3


def test_an_unknown_ending_named_outright_is_read_as_text(ingest: Runner) -> None:
    """From a folder it is not taken; by name or pattern it is, if it is text."""
    ingest.write("docs/a.md", "a\n")
    ingest.write("docs/conf.ini", "[x]\ny = 1\n")
    ingest.write("docs/logo.png", b"\x89PNG\0")
    assert ids(ingest("./docs")[1]) == ["docs/a.md"]
    assert ids(ingest("./docs/**")[1]) == ["docs/a.md"]
    for path in ("./docs/conf.ini", "./docs/*.ini"):
        (document,) = ingest(path)[1]
        assert (document.id, document.media_type) == ("docs/conf.ini", "text/plain")
    with pytest.raises(StageError, match=r"docs/logo\.png is a binary file"):
        ingest("./docs/*")


def test_nothing_left_says_where_it_went(ingest: Runner) -> None:
    """An input of which nothing remains is an error that lists what was looked at."""
    ingest.write("docs/a.md", "a\n")
    ingest.write("docs/logo.png", b"\0")
    with pytest.raises(StageError) as caught:
        ingest("./docs", exclude=["*.md"])
    assert caught.value.message == "no document is left of ./docs"
    assert caught.value.hint == "no documents: 1 .png; excluded: 1"
    ingest.write("rows/a.jsonl", '{"text": " "}\n')
    with pytest.raises(StageError) as caught:
        ingest("./rows")
    assert caught.value.hint == "rows without text: 1"


def test_rows_by_columns(ingest: Runner) -> None:
    """Columns are named once for all files of rows; an id that is there twice is an error."""
    ingest.write("faq.csv", "no,q,a,topic\n1,Why?,Because.,x\n2,Who?,Me.,y\n")
    columns = {"text": ["a"], "title": "q", "id": "no"}
    _, documents = ingest("./faq.csv", columns=columns)
    assert [(d.id, d.title, d.text, d.metadata) for d in documents] == [
        ("faq.csv#1", "Why?", "Because.", {"topic": "x"}),
        ("faq.csv#2", "Who?", "Me.", {"topic": "y"}),
    ]
    ingest.write("faq.csv", "no,a\na,1\na,2\n")
    with pytest.raises(StageError, match=r"two documents are called faq\.csv#a"):
        ingest("./faq.csv", columns={"text": ["a"], "id": "no"})


def test_a_misspelled_column_is_no_broken_file(ingest: Runner) -> None:
    """It is named with those that are there; passing the file over is not advised."""
    ingest.write("docs/a.md", "a\n")
    ingest.write("docs/faq.csv", "question,answer\nWhy?,Because.\n")
    columns = {"text": ["answr"]}
    for on_error in ("fail", "skip"):
        with pytest.raises(StageError) as caught:
            ingest("./docs", columns=columns, on_error=on_error)
        message = "docs/faq.csv:2: no column 'answr'; the row has 'question', 'answer'"
        assert (caught.value.message, caught.value.hint) == (message, "did you mean 'answer'?")
    ingest.write("docs/other.csv", "answr\nSo.\n")
    _, documents = ingest("./docs", columns=columns, on_error="skip")
    assert ids(documents) == ["docs/a.md", "docs/other.csv#1"]


def test_a_row_that_lacks_a_column_is_a_broken_file(ingest: Runner) -> None:
    """Where the rows before it have it, the column is not misspelled: the file can be passed over."""
    ingest.write("docs/a.md", "a\n")
    ingest.write("docs/faq.jsonl", '{"answer": "Yes."}\n{"anwser": "No."}\n')
    columns = {"text": ["answer"]}
    with pytest.raises(StageError, match=r"faq\.jsonl:2: no column 'answer'") as caught:
        ingest("./docs", columns=columns)
    assert "on_error: skip" in (caught.value.hint or "")
    _, documents = ingest("./docs", columns=columns, on_error="skip")
    assert ids(documents) == ["docs/a.md"]


def test_a_column_of_metadata_that_no_row_has_is_told_of(ingest: Runner) -> None:
    """Rows may leave one out, so it is not an error; but one that all do is likely misspelled."""
    ingest.write("a.jsonl", '{"text": "a", "author": "A."}\n{"text": "b", "year": 1999}\n')
    ingest("./a.jsonl", columns={"text": ["text"], "metadata": ["author", "year", "autor"]})
    assert ingest.warnings == ["columns.metadata: no row has a value in 'autor'"]


def test_a_half_scanned_pdf_is_told_of(ingest: Runner) -> None:
    """Pages without text are not an error where others have some, but a loss to know of."""
    ingest.write("a.pdf", pdf_bytes([["text"], [], []]))
    ingest("./a.pdf")
    assert ingest.warnings == ["a.pdf: 2 of its 3 pages have no text (scans?)"]


@pytest.mark.slow
def test_the_same_files_give_the_same_bytes(ingest: Runner, tmp_path: Path) -> None:
    """Wherever the project lies and in whatever order its files came."""
    other = Runner(tmp_path / "elsewhere" / "deep")
    for runner, names in ((ingest, "abc"), (other, "cab")):
        for name in names:
            runner.write(f"docs/{name}.html", f"<h1>{name}</h1><p>Text of {name}.")
    one, two = (runner("./docs")[0].outputs["documents"] for runner in (ingest, other))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    ("paths", "tools"),
    [
        (["./a.jsonl"], ()),
        (["./docs/*.pdf"], ("pypdfium2",)),
        (["./*.txt", "./a.PDF"], ("charset-normalizer", "pypdfium2")),
        (
            ["./*.md"],
            (
                "beautifulsoup4",
                "charset-normalizer",
                "lxml",
                "markdown-it-py",
                "markdownify",
                "soupsieve",
            ),
        ),
    ],
)
def test_only_the_tools_that_may_be_needed(paths: list[str], tools: tuple[str, ...]) -> None:
    """A new PDF reader does not cause Markdown to be read again; a folder may hold anything."""
    config = msgspec.convert({"kind": "ingest", "paths": paths}, IngestConfig)
    assert Ingest.tools(config) == tools
    for path in ("./docs", "./docs/*", "fetched", "./docs.md/", "./v1.2"):
        everything = msgspec.convert({"kind": "ingest", "paths": [path]}, IngestConfig)
        assert {"mammoth", "docutils", "pypdfium2"} <= set(Ingest.tools(everything))


def test_files_that_another_stage_makes(workspace: Workspace) -> None:
    """A command's folder or file is ingested like any other, and called after its stage."""
    workspace.write(
        "version: 1\nname: x\nstages:\n"
        "  fetched: {kind: command, run: 'mkdir ${outputs.o}; echo words > ${outputs.o}/a.md', outputs: {o: site}}\n"
        "  table: {kind: command, run: 'echo \"{}\" > ${outputs.o}', outputs: {o: t.txt}}\n"
        "  docs: {kind: ingest, paths: [fetched, table]}\n"
    )
    result = workspace.run()
    path = Path(result["stages"]["docs"]["outputs"]["documents"])
    assert ids(list(read_documents(path))) == ["fetched/a.md", "table/t.txt"]
