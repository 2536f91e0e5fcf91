"""Clauses: a quantity belongs to the words beside it, in a sentence, a passage and a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.retrieval.clauses import Clause, clauses, clauses_of_source, misplaced

pytestmark = pytest.mark.heavy  # the package regex is of the extra `rag`

PRICES = "Adults pay 5 euros and children pay 3 euros."
TICKET = "The ticket costs 5 euros for adults and 3 euros for children."
VISITORS = "The museum had 500 visitors in 2023 and 700 in 2024."
YEARS = "| Fruit | 2023 | 2024 |"


def of(text: str, names: str = "") -> list[Clause]:
    """Return the clauses of a passage, sentence by sentence."""
    return [clause for line in text.splitlines() for clause in clauses_of_source(line, names)]


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("Children pay 5 euros", PRICES),
        ("Adults pay 3 euros", PRICES),
        ("The fee for children is 5 euros", "The fee for adults is 5 euros, 3 euros for children."),
        ("The fee is 40 euros", "The fee is 60 euros.\nTowels cost 40 euros."),
        ("The fee costs 40 euros", "The fee costs 60 euros.\nTowels cost 40 euros."),
        ("Adults under 18 pay 5 euros", "Adults over 18 pay 5 euros, adults under 18 pay 3."),
        ("The ticket costs 5 euros for children", TICKET),
        ("In 2024 the museum had 500 visitors", VISITORS),
        ("Berlin has 1,500 employees", "Munich has 1,500 employees, Berlin has 2,000."),
        ("Kinder zahlen 5 Euro", "Erwachsene zahlen 5 Euro und Kinder zahlen 3 Euro."),
        ("儿童票3元", "成人票3元，儿童票2元。"),
    ],
)
def test_a_quantity_of_other_words_is_misplaced(claim: str, source: str) -> None:
    """The source contains it, but about something else."""
    assert misplaced(clauses(claim), of(source))


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("The ticket costs 3 euros for children", TICKET),
        ("It leaves at 9:30 from platform 2", "It leaves at 9.30 a.m. from platform 2."),
        ("The ticket costs 5 euros for adults", TICKET),
        ("In 2024 the museum had 700 visitors", VISITORS),
        ("The museum had 500 visitors in 2023", VISITORS),
        ("Children pay 3 euros", PRICES),
        ("Adults pay 5 euros", PRICES),
        ("Adults pay 5 and children 3 euros", PRICES),
        ("Children: 3 euros, adults: 5 euros", PRICES),
        (
            "The permit costs 40 euros and takes 10 days",
            "The permit costs 40 euros.\nIt takes 10 days.",
        ),
        ("A copy is only 40 euros", "The fee is 60 euros.\nA copy is 40 euros."),
        (
            "The fee is 3 euros for children",
            "The fee for children, which is due in May, is 3 euros.",
        ),
        (
            "The museum, open since 1990, costs 5 euros",
            "The museum costs 5 euros.\nIt opened in 1990.",
        ),
        ("It takes 10 days", "It takes 10 days after 3 payments."),
        ("Children pay 2 euros", "Children pay 2 euros; children over six pay 3 euros."),
        ("The pool is closed", PRICES),
        ("It costs 3 euros", PRICES),
    ],
)
def test_a_quantity_of_the_same_words_is_not(claim: str, source: str) -> None:
    """Also if the claim says less, or in another order."""
    assert not misplaced(clauses(claim), of(source))


def test_a_cell_belongs_to_its_row_and_column() -> None:
    """The year of another column and the fruit of another row are different facts."""
    table = of("| Pear | 40 | 60 |\n| Plum | 70 | 90 |", YEARS)
    assert not misplaced(clauses("In 2024, 60 pears were sold"), table)
    assert not misplaced(clauses("Pears sold in 2023: 40"), table)
    assert misplaced(clauses("In 2023, 60 pears were sold"), table)
    assert misplaced(clauses("In 2024, 90 pears were sold"), table)


def test_a_row_may_be_named_by_a_number() -> None:
    """The number of one row and a quantity of another one do not form a fact."""
    names = "| VEI | Ejected volume | Column |"
    rows = "| 6 | 10^10 m^3 | 30 km |\n| 7 | 10^11 m^3 | 40 km |\n| 8 | 10^12 m^3 | 50 km |"
    table = of(rows, names)
    assert misplaced(clauses("VEI 6 is 10^12 m^3"), table)
    assert not misplaced(clauses("VEI 6 is 10^10 m^3"), table)
    assert not misplaced(clauses("A VEI of 8 means an ejected volume of 10¹² m³"), table)


@given(st.text(alphabet="ab 12,.;|and不3元", max_size=40))
def test_nothing_is_misplaced_in_itself(text: str) -> None:
    """Every quantity of a text is beside its own words."""
    assert not misplaced(clauses(text), clauses_of_source(text))
