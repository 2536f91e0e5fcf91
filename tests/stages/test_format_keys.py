"""What a format stage finds out about keys in files is what sets and dicts in memory say."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.stages import format_columns, format_keys
from llmpipe.stages.format_columns import Lines, Records, ScatteredLines, stretches
from llmpipe.stages.format_keys import more_often, ranges, repeated, repeats

KEYS = st.lists(st.integers(0, 12), max_size=60)
TOGETHER = pytest.mark.parametrize("together", [1, 7, 1 << 19])


def key(number: int) -> bytes:
    """Return a key as digests are."""
    return blake2b(b"%d" % number, digest_size=16).digest()


@contextmanager
def column(numbers: list[int], together: int) -> Iterator[Records]:
    """Keys in a file, of which some are compared together."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(format_keys, "TOGETHER", together)
        records = Records(Path(folder), "16s")
        records.add(b"".join(map(key, numbers)))
        yield records


@TOGETHER
@given(numbers=KEYS)
def test_repeated_keys_are_those_that_stand_twice(together: int, numbers: list[int]) -> None:
    """The answer is exact, however few keys are compared together."""
    counts = Counter(numbers)
    with column(numbers, together) as keys:
        assert list(repeated(keys)) == [counts[number] > 1 for number in numbers]


@TOGETHER
@given(data=st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.booleans()), max_size=60))
def test_one_row_of_each_key_is_kept(together: int, data: list[tuple[int, bool, bool]]) -> None:
    """Of equal keys the first is kept that is not replaceable, and otherwise the first."""
    rows, replaceable = bytes(row for _, row, _ in data), bytes(old for _, _, old in data)
    kept: dict[int, int] = {}
    for i in sorted(range(len(data)), key=lambda i: (replaceable[i], i)):
        if rows[i]:
            kept.setdefault(data[i][0], i)
    with column([number for number, row, _ in data if row], together) as keys:
        found = list(repeats(keys, rows, replaceable))
    assert sorted([*found, *kept.values()]) == [i for i, row in enumerate(rows) if row]


@TOGETHER
@given(
    data=st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=60), most=st.integers(0, 9)
)
def test_keys_are_counted(together: int, data: list[tuple[int, bool]], most: int) -> None:
    """Those that occur more often than asked come with how often, rows aside that do not count."""
    counts = Counter(key(number) for number, counted in data if counted)
    with column([number for number, _ in data], together) as keys:
        found = list(more_often(most, keys, bytes(counted for _, counted in data)))
    assert sorted(found) == sorted((k, often) for k, often in counts.items() if often > most)


@given(st.integers(0, 1 << 33), st.binary(min_size=16, max_size=16))
def test_a_key_lies_in_one_range(keys: int, one: bytes) -> None:
    """Ranges follow each other, and none leaves a key out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(format_keys, "TOGETHER", max(1, keys // 20))
        assert sum(low <= one < high for low, high in ranges(keys)) == 1


@given(st.binary().map(lambda ones: bytes(one & 1 for one in ones)))
def test_stretches_are_runs_of_ones(chosen: bytes) -> None:
    """Together they hold all ones, and nothing else; none touches the next."""
    found = list(stretches(chosen))
    inside = {i for start, stop in found for i in range(start, stop)}
    assert inside == {i for i, one in enumerate(chosen) if one}
    assert all(first[1] < second[0] for first, second in pairwise(found))


@given(st.lists(st.lists(st.binary().map(lambda text: text.replace(b"\n", b"")), min_size=1)))
def test_lines_come_back(blocks: list[list[bytes]]) -> None:
    """All at once, in blocks and one by one, in any order, also while more are added."""
    lines: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        column = Lines(Path(folder))
        for block in blocks:
            column.add(b"".join(line + b"\n" for line in block), len(block))
            lines += block
            assert column[len(lines) - 1] == lines[-1]
        assert (list(column), len(column)) == (lines, len(lines))
        assert [column[i] for i in reversed(range(len(lines)))] == lines[::-1]
        assert [i for positions, _ in column.blocks() for i in positions] == [*range(len(lines))]


@given(st.lists(st.integers(0, 2**64 - 1)), st.integers(0, 9), st.integers(0, 9))
def test_records_come_back(numbers: list[int], start: int, stop: int) -> None:
    """All at once, some that follow each other, and one by one."""
    with tempfile.TemporaryDirectory() as folder:
        column = Records(Path(folder), "<Q")
        for number in numbers:
            column.add(number.to_bytes(8, "little"))
        assert [number for (number,) in column] == numbers
        assert [column[i] for i in range(len(numbers))] == numbers
        stop = min(stop, len(numbers))
        some = range(min(start, stop), stop)
        assert list(column.some(some)) == numbers[some.start : some.stop]


@given(
    added=st.lists(st.lists(st.binary(max_size=9), max_size=4), max_size=5),
    block=st.sampled_from((1, 8, 1 << 18)),
    data=st.data(),
)
def test_scattered_lines_are_read_in_any_order(
    added: list[list[bytes]], block: int, data: st.DataObject
) -> None:
    """One by one and together, also before more of them are added."""
    lines: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(format_columns, "BLOCK", block)
        column = ScatteredLines(Path(folder))
        for some in added:
            bare = [line.replace(b"\n", b"") for line in some]
            column.add(bare)
            lines += bare
            places = data.draw(st.lists(st.sampled_from(range(len(lines))))) if lines else []
            assert column.at(places) == [lines[i] for i in places]
            assert [column[i] for i in places] == [lines[i] for i in places]
