"""Reading GGUFs of one file and of several, and joining the parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf_files import Tensors, rewrite

from llmpipe.backends.llama_cpp.gguf_file import open_gguf, read_gguf, whole_file
from llmpipe.errors import StageError

pytestmark = pytest.mark.heavy


@pytest.fixture
def whole(sharp_llama: Path, tmp_path: Path) -> Path:
    """A GGUF of one file, as gguf-py writes it."""
    return rewrite(sharp_llama / "bare.gguf", tmp_path / "whole.gguf")


@pytest.fixture
def first(sharp_llama: Path, tmp_path: Path) -> Path:
    """The first of several parts of the same."""
    return rewrite(sharp_llama / "bare.gguf", tmp_path / "m.gguf", tensors_a_part=8)


def metadata(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says how many files, fields and tensors there are."""
    return {k: v for k, v in fields.items() if not k.startswith(("GGUF.", "split."))}


def test_a_file_is_read_as_by_its_own_reader(smollm2_gguf: Path) -> None:
    """Every field and the bytes of every tensor; the quicker reader maps the file, too."""
    import gguf
    import numpy as np

    expected = gguf.GGUFReader(smollm2_gguf)
    opened = open_gguf(smollm2_gguf)
    assert opened.fields == {name: field.contents() for name, field in expected.fields.items()}
    tensors = opened.readers[0].tensors
    assert len(tensors) == len(expected.tensors) == len(opened.shapes)
    for found, wanted in zip(tensors, expected.tensors, strict=True):
        assert (found.name, found.tensor_type) == (wanted.name, wanted.tensor_type)
        assert np.array_equal(found.data, wanted.data)
    mapped = tensors[0].data
    while not isinstance(mapped, np.memmap):
        mapped = mapped.base


@pytest.mark.parametrize("empty_first", [False, True])
def test_parts_are_read_and_joined_as_the_whole(
    whole: Path, sharp_llama: Path, tmp_path: Path, empty_first: bool
) -> None:
    """Fields and shapes are those of all parts; joined, they are the file byte for byte."""
    first = rewrite(
        sharp_llama / "bare.gguf",
        tmp_path / "p.gguf",
        tensors_a_part=8,
        empty_first=empty_first,
    )
    gguf = open_gguf(first)
    assert len(gguf.readers) == 3 + empty_first
    fields, shapes = read_gguf(whole)
    assert gguf.shapes == shapes
    assert metadata(gguf.fields) == metadata(fields)
    with whole_file(gguf, tmp_path) as joined:
        assert joined.read_bytes() == whole.read_bytes()
    assert not joined.exists()


def test_one_file_is_not_copied(whole: Path, tmp_path: Path) -> None:
    """What is one file already is used where it lies."""
    with whole_file(open_gguf(whole), tmp_path) as path:
        assert path == whole
    assert whole.exists()


def test_a_part_that_is_missing_or_cut_short(first: Path) -> None:
    """Each part is read: what is wrong with one is said of that one."""
    second = first.with_name(first.name.replace("-00001-", "-00002-"))
    second.write_bytes(second.read_bytes()[:-100])
    with pytest.raises(StageError, match=r"m-00002-of-00003\.gguf cannot be read as GGUF"):
        open_gguf(first)
    second.unlink()
    with pytest.raises(StageError, match=r"m-00002-of-00003\.gguf cannot be read"):
        open_gguf(first)


def test_parts_in_the_wrong_order(first: Path) -> None:
    """What a part says of itself must be what its name says."""
    second, third = (first.with_name(first.name.replace("-00001-", f"-0000{n}-")) for n in (2, 3))
    second.write_bytes(third.read_bytes())
    with pytest.raises(StageError, match=r"m-00002-of-00003\.gguf is not part 2 of 3"):
        open_gguf(first)


def test_a_first_part_by_another_name(first: Path) -> None:
    """A renamed part is not taken for a model of fewer tensors."""
    renamed = first.rename(first.with_name("model.gguf"))
    with pytest.raises(StageError, match=r"model\.gguf is part 1 of 3 of a GGUF"):
        open_gguf(renamed)


def test_a_part_of_another_model(first: Path, sharp_llama: Path, tmp_path: Path) -> None:
    """Parts that hold too few tensors together are mixed up."""

    def drop(tensors: Tensors) -> None:
        del tensors["blk.0.ffn_up.weight"]

    (tmp_path / "other").mkdir()
    other = rewrite(
        sharp_llama / "bare.gguf", tmp_path / "other" / "m.gguf", tensors_a_part=8, change=drop
    )
    third = first.name.replace("-00001-", "-00003-")
    first.with_name(third).write_bytes(other.with_name(third).read_bytes())
    with pytest.raises(StageError, match="contain 20 tensors instead of 21"):
        open_gguf(first)
