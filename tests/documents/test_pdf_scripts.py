"""PDF: scripts are recognized only by the positions and sizes of letters."""

from __future__ import annotations

import pytest
from document_files import pdf_bytes

from llmpipe.documents.pdf import convert

UP, DOWN, SMALL, BIG = "4 Ts", "-2 Ts", "/F1 8 Tf", "/F1 12 Tf 0 Ts"
"""Move letters, and change their size; BIG is the line's own."""


def page(*shown: tuple[str, str]) -> str:
    """Write a line of words, each after its operators."""
    return "BT 50 700 Td\n" + "".join(f"{how} ({text}) Tj\n" for how, text in shown) + "ET"


def read(stream: str) -> str:
    return convert(pdf_bytes([stream]), "a.pdf").text


def test_powers_indices_and_notes() -> None:
    """10 with a raised 23 is not 1023; a mark after a word refers to a note."""
    text = read(
        page(
            (BIG, "6.02 x 10"), (f"{UP} {SMALL}", "23"), (BIG, " mol"), (f"{UP} {SMALL}", "-1"),
            (BIG, " of H"), (f"{DOWN} {SMALL}", "2"), (BIG, "O, x"), (f"{DOWN} {SMALL}", "n+1"),
        )
    )  # fmt: skip
    assert text == "6.02 x 10^23 mol^-1 of H2O, x_(n+1)\n"
    assert (
        read(page((BIG, "The price"), (f"3 Ts {SMALL}", "3"), (BIG, " is"))) == "The price [3] is\n"
    )


@pytest.mark.parametrize(
    ("amount", "raised", "text"),
    [("$40", "99", "$40.99"), ("$50.00", "3", "$50.00 [3]"), ("40 euros", "4", "40 euros [4]")],
)
def test_prices(amount: str, raised: str, text: str) -> None:
    """Raised cents are part of a price; a note mark after it is not."""
    shown = page((BIG, f"Only {amount}"), (f"3 Ts {SMALL}", raised), (BIG, " a year"))
    assert read(shown) == f"Only {text} a year\n"


@pytest.mark.parametrize(
    "shown",
    [
        [(BIG, "In 2019"), (SMALL, "47"), (BIG, " x")],  # smaller, on the line
        [(BIG, "In 2019"), (UP, "47"), (BIG, " x")],  # as large, moved
        [("/F1 40 Tf", "1"), ("28 Ts /F1 12 Tf", "9 men"), (BIG, " x")],  # an initial
    ],
)
def test_other_letters_are_no_scripts(shown: list[tuple[str, str]]) -> None:
    """Small print, uneven letters, drop caps over several lines."""
    found = read(page(*shown))
    assert "^" not in found
    assert "_" not in found


def test_a_size_that_the_page_scales() -> None:
    """Some programs write every font at one point and scale the letters on the page."""
    stream = (
        "BT /F1 1 Tf 12 0 0 12 50 700 Tm (at 10) Tj 8 0 0 8 76.7 704 Tm (6) Tj "
        "12 0 0 12 81.2 700 Tm ( cells) Tj ET"
    )
    assert read(stream) == "at 10^6 cells\n"


def test_text_beside_the_page_moves_nothing() -> None:
    """Text outside the page is left out and does not shift positions in the text."""
    beside = "BT /F1 12 Tf 50 900 Td (cut off 5) Tj ET\n"
    assert read(beside + page((BIG, "at 10"), (f"{UP} {SMALL}", "6"), (BIG, " x"))) == "at 10^6 x\n"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        ([(BIG, "x"), (f"{UP} {SMALL}", "2"), (BIG, " = 4")], "x^2 = 4"),
        ([(BIG, "5"), (f"{UP} {SMALL}", "2"), (BIG, " is 25")], "5^2 is 25"),
        ([(BIG, "s"), (f"{UP} {SMALL}", "-1"), (BIG, " or Hz")], "s^-1 or Hz"),
        ([(BIG, "T"), (f"{UP} {SMALL}", "4")], "T^4"),
        ([(BIG, "x"), (f"{UP} {SMALL}", "2"), (BIG, "y"), (f"{UP} {SMALL}", "n+1")], "x^2 y^(n+1)"),
    ],
)
def test_a_single_letter_that_begins_a_line_keeps_its_script(
    shown: list[tuple[str, str]], text: str
) -> None:
    """There pdfium writes breaks around the script."""
    assert read(page(*shown)) == f"{text}\n"
    before = "BT /F1 12 Tf 50 750 Td (max) Tj 0 -15 Td (2 m) Tj ET\n"
    after = "\nBT /F1 12 Tf 50 650 Td (9) Tj ET"
    assert read(before + page(*shown) + after) == f"max\n2 m\n{text}\n9\n"


def test_small_print_in_another_line_is_no_script() -> None:
    """It is below or above the word, not beside it."""
    assert read("BT /F1 12 Tf 50 700 Td (5) Tj /F1 8 Tf 0 8 Td (2 x) Tj ET") == "5\n2 x\n"
    assert read("BT /F1 12 Tf 90 700 Td (5) Tj /F1 8 Tf -40 -9 Td (2 x) Tj ET") == "5\n2 x\n"
