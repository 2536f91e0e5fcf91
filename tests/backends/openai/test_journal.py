"""The journal: nothing answered is lost, by kill or by company."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.openai.journal import FILE, Journal, counted_replies, request_key
from llmpipe.errors import StoreError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_a_reply_comes_back(tmp_path: Path) -> None:
    """What is put is got, in this journal and in one opened later."""
    with Journal(tmp_path / "j") as journal:
        assert journal.get("a") is None
        journal.put("a", {"text": "zwölf\nBoxes \u2028"})
        assert journal.get("a") == {"text": "zwölf\nBoxes \u2028"}
    with Journal(tmp_path / "j") as journal:
        assert journal.get("a") == {"text": "zwölf\nBoxes \u2028"}


def test_replies_that_stood_there_before_are_counted(tmp_path: Path) -> None:
    """Not those that were journaled since, and none where they are passed over."""
    with Journal(tmp_path) as journal:
        journal.put("a", 1)
        assert (journal.get("a"), journal.reused) == (1, 0)
    with Journal(tmp_path) as journal:
        journal.put("b", 2)
        assert (journal.get("b"), journal.reused) == (2, 0)
        assert (journal.get("a"), journal.reused) == (1, 1)
    with Journal(tmp_path, resample=True) as journal:
        journal.put("a", 3)
        assert (journal.get("a"), journal.reused) == (3, 0)
    assert [counted_replies(number) for number in (1, 2)] == ["1 reply", "2 replies"]


def test_one_process_sees_what_another_adds(tmp_path: Path) -> None:
    """A journal that is already open takes in later lines."""
    with Journal(tmp_path) as one, Journal(tmp_path) as other:
        assert one.get("a") is None
        other.put("a", 1)
        assert one.get("a") == 1


@given(value=JSON, cut=st.integers(2, 10_000))
def test_a_torn_last_line_costs_only_itself(
    tmp_path_factory: pytest.TempPathFactory, value: object, cut: int
) -> None:
    """Whatever part of the last line a kill left, the others are read and new ones can be added."""
    folder = tmp_path_factory.mktemp("j")
    with Journal(folder) as journal:
        journal.put("kept", value)
        whole = (folder / FILE).stat().st_size
        journal.put("torn", value)
    data = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data[: max(whole, len(data) - cut)])
    with Journal(folder) as journal:
        assert journal.get("torn") is None
        journal.put("later", value)
        assert journal.get("later") == value
        assert journal.get("kept") == value
        assert journal.get("torn") is None


WRITER = """
import sys
from pathlib import Path
from llmpipe.backends.openai.journal import Journal
with Journal(Path(sys.argv[1])) as journal:
    for number in range(int(sys.argv[3])):
        journal.put(f"{sys.argv[2]}-{number}", "x" * (number % 7000))
        print(number, flush=True)
"""


@pytest.mark.slow
def test_several_processes_write_at_once(tmp_path: Path) -> None:
    """No line of one process ends up inside a line of another."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path, name, "200"], stdout=subprocess.DEVNULL
        )
        for name in "abc"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = (tmp_path / FILE).read_text().splitlines()
    assert len({json.loads(line)["key"] for line in lines}) == len(lines) == 600


def test_what_was_put_survives_a_kill(tmp_path: Path) -> None:
    """After kill -9 every reply whose `put` returned is there."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path, "k", "100000"], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        last = [int(writer.stdout.readline()) for _ in range(50)][-1]
        writer.send_signal(signal.SIGKILL)
    with Journal(tmp_path) as journal:
        assert all(journal.get(f"k-{number}") is not None for number in range(last + 1))
        journal.put("after", "x")
        assert journal.get("after") == "x"


def test_the_key_is_canonical() -> None:
    """Key order does not matter; every value does; what is not JSON is refused."""
    assert request_key({"a": 1, "b": "ü"}) == request_key({"b": "ü", "a": 1})
    assert request_key({"a": 1}) != request_key({"a": 2})
    with pytest.raises(ValueError):
        request_key({"a": float("nan")})
    with pytest.raises(TypeError):
        request_key({"a": Path("x")})


def test_a_journal_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/j/replies\.jsonl"):
        Journal(tmp_path / "file" / "j")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_loud(tmp_path: Path) -> None:
    """A reply that cannot be kept is an error, not a warning."""
    (tmp_path / FILE).symlink_to("/dev/full")
    with Journal(tmp_path) as journal, pytest.raises(StoreError, match="No space left"):
        journal.put("a", 1)
