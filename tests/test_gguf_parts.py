"""The names of the parts of a split GGUF."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.gguf_parts import Part, all_parts, part_of

STEMS = st.text(min_size=0, max_size=20).filter(lambda text: "/" not in text and "\0" not in text)


@given(STEMS, st.integers(2, 99_999), st.data())
def test_a_name_is_read_as_it_is_written(stem: str, count: int, data: st.DataObject) -> None:
    """What `Part` writes, `part_of` reads, whatever the stem holds."""
    number = data.draw(st.integers(1, count))
    part = Part(stem, number, count)
    assert part_of(part.name(number)) == part
    assert part.name(number) == stem + part.ending(number)


@given(st.text())
def test_other_names_are_no_parts(name: str) -> None:
    """Any text can be asked; what is a part has the name that its parts make."""
    part = part_of(name)
    assert part is None or part.name(part.number) == name


@pytest.mark.parametrize(
    "name",
    [
        "m.gguf",
        "m-00001-of-00001.gguf",
        "m-00000-of-00003.gguf",
        "m-00004-of-00003.gguf",
        "m-1-of-3.gguf",
        "m-00001-of-00003.gguf.part",
        "m-00001-of-00003.safetensors",
    ],
)
def test_names_that_only_look_like_it(name: str) -> None:
    """A GGUF of one part, impossible numbers and other endings stand for themselves."""
    assert all_parts(Path("a") / name) == (Path("a") / name,)


def test_every_part_stands_for_all() -> None:
    """The parts are found beside the file, in order."""
    expected = tuple(Path(f"a/m-{n:05d}-of-00003.gguf") for n in (1, 2, 3))
    assert all_parts(Path("a/m-00002-of-00003.gguf")) == expected
