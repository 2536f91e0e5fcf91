"""Facts: the same in another notation is the same; another number, day or negation is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.retrieval.facts import facts_of

pytestmark = pytest.mark.heavy  # the package regex is of the extra `rag`


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("The fee is 40 euros", "Fee: 40.0 euros"),
        ("It takes forty minutes", "40 minutes"),
        ("twenty-five seats", "25 seats"),
        ("two hundred seats", "200 seats"),
        ("1,000 people", "1000 people"),
        ("1 000 people", "1.000 people"),
        ("4,50 euros", "4.50 euros"),
        ("1.234,5 kg", "1,234.5 kg"),
        ("10⁶ cells", "10^6 cells"),
        ("٤٠ دينار", "40 دينار"),
        ("1. The fee is 40 euros", "The fee is 40 euros"),
        ("It opens on 5 March 2024", "Opening: 2024-03-05"),
        ("It opens on March 5th, 2024", "Opening: 05.03.2024"),
        ("It opens on 5 March", "Opening: 2024-03-05"),
        ("It opens in March 2024", "Opening: 5 March 2024"),
        ("Le 5 mars 2024", "2024-03-05"),
        ("Am 5. März 2024", "05.03.2024"),
        ("Opens 3/5/2024", "Opens 5 March 2024"),
        ("You may swim", "Swimming is allowed"),
        ("Opens at 9:00", "Opens at 9 am"),
        ("Opens at 9 pm", "Opens at 21:00"),
        ("Open from 9-18", "Open from 9 to 18"),
        ("Closed on Monday", "Closed on Mondays"),
        ("Dogs aren't allowed", "Dogs are not allowed"),
        ("You cannot enter", "You can't enter"),
        ("Children pay 2 euros", "Children pay 2 euros and do not need a ticket"),
        ("It is open on Friday", "It is not open on Monday, but it is open on Friday"),
        ("Not only adults pay", "Adults pay"),
    ],
)
def test_a_source_that_says_it_in_another_way_supports_a_claim(claim: str, source: str) -> None:
    """Numbers, dates and times in several notations; what the source says besides is no matter."""
    assert facts_of(source).support(facts_of(claim))


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("The fee is 40 euros", "The fee is 60 euros"),
        ("forty euros", "sixty euros"),
        ("vierzig Euro", "sechzig Euro"),
        ("quarante euros", "soixante euros"),
        ("10⁶ cells", "106 cells"),
        ("It is -5 degrees", "It is 5 degrees"),
        ("error E4711", "error E4712"),
        ("It opens on 5 March 2024", "It opens on 5 March"),
        ("It opens on 5 April 2024", "Opening: 2024-03-05"),
        ("It is closed until May", "It is closed until June"),
        ("Opens at 9 am", "Opens at 9 pm"),
        ("Closed on Mondays", "Closed on Tuesdays"),
        ("Dogs are not allowed", "Dogs are allowed"),
        ("Dogs are allowed", "Dogs are not allowed"),
        ("Dogs are allowed", "Dogs aren’t allowed"),
        ("Nobody may enter", "Everybody may enter"),
        ("Hunde sind erlaubt", "Hunde sind nicht erlaubt"),
        ("Es kostet keine Gebühr", "Es kostet eine Gebühr"),
        ("Les chiens ne sont pas admis", "Les chiens sont admis"),
        ("Los perros no entran", "Los perros entran"),
        ("Hundar är inte tillåtna", "Hundar är tillåtna"),
        ("Собаки не разрешены", "Собаки разрешены"),
        ("Köpekler serbest değildir", "Köpekler serbest"),
        ("图书馆开放", "图书馆不开放"),
        ("ห้องสมุดไม่เปิด", "ห้องสมุดเปิด"),
    ],
)
def test_a_source_that_says_something_else_does_not(claim: str, source: str) -> None:
    """One number, day or negation of difference, in either direction."""
    assert not facts_of(source).support(facts_of(claim))


@given(st.text(alphabet="19,. :-/'^apm may notd不E", max_size=40))
def test_any_text_supports_itself(text: str) -> None:
    """Whatever stands in it is read the same way twice."""
    assert facts_of(text).support(facts_of(text))
