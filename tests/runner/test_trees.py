"""Folders of any depth, and what a store cannot keep."""

from __future__ import annotations

import os
import socket
from pathlib import Path

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
    """It is no data."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "s"))
        with pytest.raises(StageError, match="the output 'o' holds a socket"):
            take_over(tmp_path, "o")


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    """As editors leave them for locks; it was blamed on the store."""
    (tmp_path / ".#notes").symlink_to("me@host.1234")
    with pytest.raises(StageError, match=r"a link that leads nowhere: .*notes → me@host"):
        take_over(tmp_path, "o")


def test_a_link_within_is_kept(tmp_path: Path) -> None:
    """It leads to what is stored with it."""
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").symlink_to("a")
    take_over(tmp_path, "o")
    assert (tmp_path / "b").is_symlink()
