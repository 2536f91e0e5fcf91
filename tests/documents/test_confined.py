"""Files that use too much or crash their reader are refused; others are read as usual."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from document_files import docx_bytes, pdf_bytes
from processes import wait_for

from llmpipe.documents import confined, convert, plain
from llmpipe.documents.convert import Options
from llmpipe.documents.rows import Columns
from llmpipe.errors import LlmpipeError, MissingDependencyError, StageError
from llmpipe.formats.row import MissingColumnError

SMALL = confined.Limits(memory=200_000_000, seconds=0.9)
"""Of which the smallest file may take 30 MB and 0.3 s."""


def fresh(megabytes: int) -> mmap.mmap:
    """Use fresh memory from the kernel: the test process may hold freed memory."""
    held = mmap.mmap(-1, megabytes * 1_000_000)
    for _ in range(megabytes):
        held.write(b"x" * 1_000_000)
    return held


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write text files by name; a word in each decides what reading it does to the child."""
    real, kept = plain.convert, []

    def behave(data, label):
        match data.decode("utf-8", "replace").split():
            case ["allocate", megabytes]:
                held = fresh(int(megabytes))
                time.sleep(30)
                held.close()
            case ["keep", megabytes]:
                kept.append(fresh(int(megabytes)))
                time.sleep(0.2)
            case ["drop", megabytes]:
                fresh(int(megabytes)).close()
            case ["compute"]:
                while True:
                    pass
            case ["die", number]:
                os.kill(os.getpid(), int(number))
            case ["leave"]:
                os._exit(0)
            case ["raise"]:
                raise ZeroDivisionError("by zero")
            case ["wait"]:
                time.sleep(600)
        return real(data, label)

    monkeypatch.setattr(plain, "convert", behave)

    def write(**texts: str) -> list[tuple[str, Path]]:
        files = []
        for name, text in texts.items():
            path = tmp_path / f"{name}.txt"
            path.write_text(text)
            files.append((path.name, path))
        return files

    return write


def children() -> set[str]:
    """Return the children of this process."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split())


def outcomes(files, limits=SMALL):
    """Return the text of each file, or why there is none."""
    found = confined.answers(files, Options(), limits)
    return [answer.error.message if answer.error else answer.documents[0].text for answer in found]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("allocate 80", "reading bad.txt takes more than 30 MB of memory, the share of `max_memory`"),
        ("compute", "reading bad.txt takes more than 0.3 s, the share of `max_seconds`"),
        ("die 11", "the process that read bad.txt ended with SIGSEGV"),
        ("die 9", "the process that read bad.txt ended with SIGKILL, most often by the kernel"),
        ("leave", "the process that read bad.txt ended with status 0"),
        ("raise", "bad.txt cannot be read: ZeroDivisionError: by zero"),
    ],
)  # fmt: skip
def test_one_file_is_refused_and_the_others_are_read(folder, text, reason):
    """Memory, time, crashes and unexpected errors: each has a reason, and no child is left."""
    before = children()
    files = folder(first="one", bad=text, second="two", worse=text, third="three")
    first, bad, second, worse, third = outcomes(files)
    assert (first, second, third) == ("one", "two", "three")
    assert reason in bad
    assert reason.replace("bad", "worse") in worse
    assert children() == before


@pytest.mark.slow
def test_a_file_that_waits_is_refused(folder, monkeypatch):
    """A file that uses no processor time is not waited for endlessly."""
    monkeypatch.setattr(confined, "PATIENCE", 1)
    bad, good = outcomes(folder(bad="wait", good="one"))
    assert "takes more than 0.3 s" in bad
    assert good == "one"


def test_larger_files_may_take_more():
    """Memory in proportion up to a megabyte, time beyond it."""
    limits = confined.Limits(memory=1000, seconds=90)
    assert limits.of(0) == (150, 30)
    assert limits.of(500_000) == (575, 45)
    assert limits.of(3_000_000) == (1000, 270)


@pytest.mark.slow
def test_memory_of_files_before_does_not_count(folder):
    """Each file is judged by what it adds."""
    files = folder(**{f"f{at}": "keep 20" for at in range(4)})
    assert outcomes(files, SMALL._replace(seconds=30)) == ["keep 20"] * 4


def test_memory_that_was_freed_is_no_room_for_the_next_file(folder):
    """The limit of a file does not depend on previous files."""
    files = folder(first="drop 110", bad="allocate 140")
    first, bad = outcomes(files, confined.Limits(memory=800_000_000, seconds=30))
    assert first == "drop 110"
    assert "takes more than 120 MB" in bad


@pytest.mark.slow
def test_documents_are_those_of_this_process(tmp_path):
    """Documents, remarks and errors are the same for every format."""
    files = {
        "a.md": b"---\nn: 1\nf: 1.5\nb: true\nt: x\n---\n# A\n\nOne.\n\n## B\n\nTwo \xf0\x9f\x98\x80.\n",
        "b.pdf": pdf_bytes([["Page one"], ["Page two"]], [("Page one", 0)], "Title"),
        "c.docx": docx_bytes([(1, "C"), (0, "Three.")], "Title"),
        "d.html": b"<h1>D</h1><p>Four.",
        "e.rst": b"E\n=\n\nFive.\n",
        "f.csv": b"text,topic,n\nSix.,x,1\n,y,2\nSeven.,z,3\n",
        "g.jsonl": b'{"text": "x", "n": 9223372036854775807, "f": 1.0, "b": false}\n',
        "h.txt": "Größe".encode("latin-1") * 30,
        "i.txt": b"",
        "j.jsonl": b'{"other": 1}\n',
        "k.jsonl": b'{"text": "x"}\n{"text": 5\n',
        "l.docx": b"PK\x03\x04 not really",
        "m.bin": bytes(range(256)),
        "none.txt": None,
    }
    for name, data in files.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
    listed = [(name, tmp_path / name) for name in files]
    for options in (Options(), Options(columns=Columns(text=("text",)), max_bytes=500)):
        found = list(confined.answers(listed, options, confined.Limits()))
        assert [as_told(a.documents, a.remarks, a.error) for a in found] == [
            in_process(path, name, options) for name, path in listed
        ]


def as_told(documents, remarks, error):
    """Return all parts of a result that can be compared."""
    told = (isinstance(error, MissingColumnError), error.message, error.hint) if error else None
    return list(documents), list(remarks), told


def in_process(path, name, options):
    """Return the result of `convert` in this process."""
    remarks: list[str] = []
    try:
        return as_told(convert.convert(path, name, options, remarks.append), remarks, None)
    except LlmpipeError as error:
        return as_told((), remarks, error)


def test_a_package_that_is_missing_is_told_from_a_bad_file(tmp_path, monkeypatch):
    """The stage cannot continue without it."""
    (tmp_path / "a.pdf").write_bytes(pdf_bytes([["x"]]))
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    (answer,) = confined.answers([("a.pdf", tmp_path / "a.pdf")], Options(), confined.Limits())
    assert isinstance(answer.error, MissingDependencyError)


def test_nothing_is_left_of_who_closes(folder):
    """Ctrl-C raises while waiting for answers, and a caller may stop early, too."""
    before = children()
    found = confined.answers(folder(good="one", bad="wait"), Options(), SMALL)
    next(found)
    assert len(children() - before) == 1
    found.close()
    assert children() == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_child_ends_with_its_parent(tmp_path, number):
    """However the parent ends, even while a file is being read."""
    (tmp_path / "a.txt").write_text("x")
    code = (
        "import sys, time, pathlib\n"
        "from llmpipe.documents import confined, plain\n"
        "from llmpipe.documents.convert import Options\n"
        "plain.convert = lambda data, label: time.sleep(600)\n"
        "list(confined.answers([('a.txt', pathlib.Path(sys.argv[1]))], Options(), confined.Limits()))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.txt")], stderr=subprocess.DEVNULL
    )
    listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    try:
        wait_for(listed.read_text)
        child = int(listed.read_text().split()[0])
        time.sleep(0.2)
        parent.send_signal(number)
        parent.wait(10)
        wait_for(lambda: not is_running(child), 5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            parent.kill()


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize(
    "text", ["# title title\n\nx", f"# {'long ' * 20}\n\n" + "###### x\n\n" * 3,
     f"---\na: &a {'x' * 40}\nb: *a\nc: *a\nd: *a\n---\n# x\n"],
)  # fmt: skip
def test_what_unfolds_is_refused(tmp_path, monkeypatch, text):
    """Text must not be far longer than its file; section titles and metadata count."""
    (tmp_path / "a.md").write_text(text)
    size = len(text.encode())
    assert convert.convert(tmp_path / "a.md", "a.md", Options())
    monkeypatch.setattr(convert, "ROOM", 0)
    monkeypatch.setattr(convert, "UNFOLDED", {False: 1, True: 1})
    with pytest.raises(StageError) as caught:
        convert.convert(tmp_path / "a.md", "a.md", Options())
    assert caught.value.message.startswith(f"a.md, of {size} bytes, becomes ")
    assert caught.value.message.endswith(f"sections; the limit for its size is {size}")
