"""Folders of any depth, and what a store cannot keep."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from llmpipe.errors import StageError
from llmpipe.runner.trees import entries, remove_tree, take_over


def deep(folder: Path, levels: int) -> Path:
    """Make a folder with many in each other, whose whole path may be longer than a path can be."""
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("deeper", dir_fd=descriptor)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("end", os.O_CREAT | os.O_WRONLY, 0o400, dir_fd=descriptor))
    os.close(descriptor)
    return folder


@pytest.mark.parametrize("levels", [1200, 20])
def test_a_deep_folder_is_removed(tmp_path: Path, levels: int) -> None:
    """Python's own removal ends in a RecursionError, which once stopped every later run."""
    remove_tree(deep(tmp_path / "deep", levels))
    assert list(tmp_path.iterdir()) == []


def test_what_may_not_be_written_to_is_removed(tmp_path: Path) -> None:
    """Objects have no right to write, and a stage may take that of its folders away."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("x")
    (tmp_path / "a" / "b").chmod(0o500)
    (tmp_path / "a").chmod(0o500)
    remove_tree(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    """What they lead to stays."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "mine")
    remove_tree(tmp_path / "tree")
    assert (tmp_path / "mine" / "file").read_text() == "x"


def test_all_that_is_below_a_folder_is_found(tmp_path: Path) -> None:
    """However deep it lies, as far as a path reaches."""
    found = list(entries(deep(tmp_path / "deep", 400)))
    assert len(found) == 401
    assert found[-1].name == "end"
    remove_tree(tmp_path / "deep")  # pytest could not


def test_a_file_with_another_name_is_copied(tmp_path: Path) -> None:
    """The user's own file would be the artifact, and a change of it change both."""
    mine = tmp_path / "mine"
    mine.write_text("x")
    output = tmp_path / "output"
    output.mkdir()
    (output / "a").hardlink_to(mine)
    take_over(output, "o")
    assert (output / "a").stat().st_ino != mine.stat().st_ino
    assert (output / "a").read_text() == "x"
    single = tmp_path / "single"
    single.hardlink_to(mine)
    take_over(single, "o")
    assert single.stat().st_ino != mine.stat().st_ino
    assert mine.stat().st_nlink == 1


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """To read one never ends."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StageError, match=r"the output 'o' holds a named pipe: .*pipe"):
        take_over(tmp_path, "o")


def test_a_socket_is_refused(tmp_path: Path) -> None:
    """It is not data."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        with pytest.raises(StageError, match="the output 'o' holds a socket"):
            take_over(tmp_path, "o")


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    """As editors leave them for locks; it was blamed on the store."""
    (tmp_path / ".#notes").symlink_to("me@host.1234")
    with pytest.raises(StageError, match=r"a broken link: .*notes → me@host"):
        take_over(tmp_path, "o")


def test_a_link_within_is_kept(tmp_path: Path) -> None:
    """It leads to what is stored with it."""
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").symlink_to("a")
    take_over(tmp_path, "o")
    assert (tmp_path / "b").is_symlink()


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    """They ended in a traceback: "Symlink loop"."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StageError, match=r"a broken link: .* → "):
        take_over(tmp_path, "o")


@pytest.mark.parametrize("target", ["folder", "folder/file", "nowhere", "output"])
def test_an_output_that_is_a_link_is_refused(tmp_path: Path, target: str) -> None:
    """What it leads to is somebody else's, and may change."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    (tmp_path / "output").symlink_to(target)
    with pytest.raises(StageError, match=r"the output 'o' is a link, .* out of it: .*outp"):
        take_over(tmp_path / "output", "o")


def test_long_names_are_removed(tmp_path: Path) -> None:
    """The names of what was moved were made of them, and too long in bytes."""
    (tmp_path / ("長" * 85) / "inner" / "more").mkdir(parents=True)
    remove_tree(tmp_path / ("長" * 85))
    assert list(tmp_path.iterdir()) == []


def test_what_stands_beside_is_in_nobodys_way(tmp_path: Path) -> None:
    """A folder left by a removal that was stopped, in a process of the same number."""
    left = tmp_path / f"tree.{os.getpid()}.1"
    (left / "full").mkdir(parents=True)
    (tmp_path / "tree" / "inner" / "more").mkdir(parents=True)
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == [left]


def test_a_folder_that_becomes_a_link_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither rights nor files of what it leads to are touched."""
    mine, inner = tmp_path / "mine", tmp_path / "tree" / "inner"
    mine.mkdir()
    (mine / "file").write_text("x")
    mine.chmod(0o755)
    inner.mkdir(parents=True)
    scandir = os.scandir

    def swapping(folder: Any) -> Any:
        found = scandir(folder)
        entries = list(found)
        if inner.is_dir() and not inner.is_symlink():
            inner.rmdir()
            inner.symlink_to(mine)
        return contextlib.nullcontext(entries)

    monkeypatch.setattr(os, "scandir", swapping)
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "tree")
    assert (mine / "file").read_text() == "x"
    assert mine.stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "tree"]


def test_what_may_not_even_be_looked_into_is_removed(tmp_path: Path) -> None:
    """A folder without any right for its owner."""
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b").chmod(0)
    (tmp_path / "a").chmod(0)
    remove_tree(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
