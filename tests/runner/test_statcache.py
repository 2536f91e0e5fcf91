"""The stat cache: unchanged files are not reread, changed ones always are."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
import zlib
from pathlib import Path

import pytest

from llmpipe.errors import StageError, StoreError
from llmpipe.patterns import REPORT_MARK
from llmpipe.runner import statcache
from llmpipe.runner.statcache import StatCache, folder_files
from llmpipe.runner.trees import remove_tree


@pytest.fixture
def cache(tmp_path: Path) -> StatCache:
    """A stat cache in a folder of its own."""
    return StatCache(tmp_path / "home" / "statcache.sqlite")


def settle(path: Path) -> None:
    """Make a file look as if it was written a minute ago (ctime cannot be set: wait it out)."""
    past = time.time_ns() - 60_000_000_000
    os.utime(path, ns=(past, past))
    time.sleep(0.05)


def test_the_digest_is_that_of_the_bytes(tmp_path: Path, cache: StatCache) -> None:
    """A file's digest is the SHA-256 of its content."""
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    assert cache.digest(path) == hashlib.sha256(b"hello").hexdigest()


def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, cache: StatCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second digest of a quiet file comes from the cache."""
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    settle(path)
    first = cache.digest(path)
    monkeypatch.setattr(statcache, "hash_file", lambda *_: pytest.fail("read again"))
    assert cache.digest(path) == first


def test_what_files_a_folder_had_is_remembered(
    tmp_path: Path, cache: StatCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its digest, until there is no more room; what is asked for stays longest."""
    folder, digests = tmp_path / "folder", []
    folder.mkdir()
    for content in ("one", "two", "three"):
        (folder / "a").write_text(content)
        digests.append(cache.digest(folder))
        if content == "two":
            assert cache.files_of(digests[0]) is not None
    assert cache.files_of("f" * 64) is None
    found = [cache.files_of(digest) for digest in digests]
    assert [list(files or ()) for files in found] == [["a"]] * 3
    assert len({str(files) for files in found}) == 3
    assert cache.files_of(digests[0]) is not None
    size = len(zlib.compress(json.dumps(found[0]).encode(), level=1))
    monkeypatch.setattr(statcache, "ROOM", 2 * size + size // 2)
    (folder / "a").write_text("four")
    digests.append(cache.digest(folder))
    known = [cache.files_of(digest) is not None for digest in digests]
    assert known == [True, False, False, True]


def test_a_change_of_the_same_size_and_mtime_is_seen(tmp_path: Path, cache: StatCache) -> None:
    """Bytes replaced in place, size and mtime put back: the ctime tells."""
    path = tmp_path / "a"
    path.write_bytes(b"hello")
    settle(path)
    before, stat = cache.digest(path), path.stat()
    path.write_bytes(b"jello")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert cache.digest(path) != before


def test_a_file_hashed_in_the_tick_of_its_writing_is_distrusted(
    tmp_path: Path, cache: StatCache
) -> None:
    """Written, hashed and written again at once: whatever the clock's grain, the last bytes count."""
    path = tmp_path / "a"
    for i in range(50):
        path.write_bytes(b"%05d" % i)
        assert cache.digest(path) == hashlib.sha256(b"%05d" % i).hexdigest()


def test_a_folder_is_its_names_and_contents(tmp_path: Path, cache: StatCache) -> None:
    """Renaming, adding and changing a file change a folder's digest; touching does not."""
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"1")
    (folder / "sub" / "b").write_bytes(b"2")
    seen = [cache.digest(folder)]
    os.utime(folder / "a")
    assert cache.digest(folder) == seen[0]
    (folder / "a").rename(folder / "c")
    seen.append(cache.digest(folder))
    (folder / "d").write_bytes(b"")
    seen.append(cache.digest(folder))
    (folder / "sub" / "b").write_bytes(b"3")
    seen.append(cache.digest(folder))
    assert len(set(seen)) == 4


def test_a_damaged_cache_is_begun_anew(tmp_path: Path) -> None:
    """The cache is only a memory: garbage in its place costs a rehash, nothing else."""
    place = tmp_path / "statcache.sqlite"
    place.write_bytes(b"this is no database" * 100)
    path = tmp_path / "a"
    path.write_bytes(b"x")
    assert StatCache(place).digest(path) == hashlib.sha256(b"x").hexdigest()


def test_a_cache_removed_while_it_is_open_refuses_no_other_use(tmp_path: Path) -> None:
    """What SQLite left beside it belongs to a file that is gone: that costs a rehash, too."""
    place, path = tmp_path / "statcache.sqlite", tmp_path / "a"
    path.write_bytes(b"x")
    with contextlib.closing(StatCache(place)):
        place.unlink()
        for _ in range(2):
            with contextlib.closing(StatCache(place)) as other:
                assert other.digest(path) == hashlib.sha256(b"x").hexdigest()


def test_an_unreadable_file_is_named(tmp_path: Path, cache: StatCache) -> None:
    """A file that is gone is a message with its path."""
    with pytest.raises(StageError, match="gone"):
        cache.digest(tmp_path / "gone")


def test_folders_of_tools_are_no_part_of_an_input(tmp_path: Path, cache: StatCache) -> None:
    """What git and Python put beside data changes no digest; an artifact has all its files."""
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_bytes(b"1")
    before = cache.digest(folder)
    for name in (".git", ".llmpipe", "sub/__pycache__"):
        (folder / name).mkdir()
        (folder / name / "x").write_bytes(b"2")
    assert cache.digest(folder) == before
    found = [name for name, _ in folder_files(folder)]
    assert found == [".git/x", ".llmpipe/x", "sub/__pycache__/x", "sub/a"]


def test_damage_found_in_use_begins_it_anew(tmp_path: Path) -> None:
    """A memory whose later pages are garbage costs a rehash too, and is sound afterwards."""
    place, folder = tmp_path / "statcache.sqlite", tmp_path / "f"
    folder.mkdir()
    for i in range(300):
        (folder / f"{i}").write_bytes(b"%d" % i)
    cache = StatCache(place)
    before = cache.digest(folder)
    cache.close()
    data = bytearray(place.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    place.write_bytes(data)
    for _ in range(2):
        cache = StatCache(place)
        assert cache.digest(folder) == before
        assert cache.digest(folder / "7") == hashlib.sha256(b"7").hexdigest()
        cache.close()
    with contextlib.closing(sqlite3.connect(place)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)


def test_a_locked_cache_is_not_removed(tmp_path: Path) -> None:
    """Another process writes to it: that is not damage, and what it knows stays."""
    place, path = tmp_path / "statcache.sqlite", tmp_path / "a"
    path.write_bytes(b"x")
    cache = StatCache(place)
    cache.digest(path)
    with contextlib.closing(sqlite3.connect(place, isolation_level=None)) as other:
        cache._db.execute("pragma busy_timeout=50")
        other.execute("begin exclusive")
        (tmp_path / "b").write_bytes(b"y")
        with pytest.raises(StoreError, match="locked"):
            cache.digest(tmp_path / "b")
        other.execute("rollback")
    with contextlib.closing(sqlite3.connect(place)) as db:
        assert db.execute("select count(*) from files").fetchone() == (1,)


def test_what_a_run_writes_beside_its_spec_is_no_input(tmp_path: Path, cache: StatCache) -> None:
    """A folder that holds its own spec's lock file was never fresh; reports of others count."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("x")
    before = cache.digest(folder)
    (folder / "spec.lock.yaml").write_text("lock")
    (folder / "report.html").write_bytes(b"<!doctype html><head>" + REPORT_MARK)
    (folder / ".#a").symlink_to("me@host.1234")  # as an editor leaves it
    assert cache.digest(folder) == before
    (folder / "report.html").write_text("<!doctype html><p>The yearly report")
    assert cache.digest(folder) != before


def test_a_pipe_is_no_input(tmp_path: Path, cache: StatCache) -> None:
    """To read one never ends."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StageError, match="pipe is a named pipe: only files and folders"):
        cache.digest(tmp_path / "pipe")
    with pytest.raises(StageError, match="pipe is a named pipe: only files and folders"):
        cache.digest(tmp_path)


@pytest.mark.slow
def test_a_deep_folder_has_a_digest(tmp_path: Path, cache: StatCache) -> None:
    """Python's stack does not limit its depth."""
    deepest = tmp_path / "top"
    for _ in range(1200):
        deepest.mkdir()
        deepest = Path(f"{deepest}/d")
    deepest.write_text("x")
    assert len(cache.digest(tmp_path / "top")) == 64
    remove_tree(tmp_path / "top")  # pytest could not


@pytest.mark.parametrize("target", ["gone", "a/below", "round"])
@pytest.mark.parametrize("name", ["round", "report.html"])
def test_a_link_that_leads_nowhere_is_no_input(
    tmp_path: Path, cache: StatCache, name: str, target: str
) -> None:
    """One that led round was an error for the whole folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a").write_text("x")
    before = cache.digest(folder)
    (folder / name).symlink_to(name if target == "round" else target)
    assert cache.digest(folder) == before
    assert cache.digest(folder, "*") == before
