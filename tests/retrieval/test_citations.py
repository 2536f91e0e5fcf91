"""Citations: which sentence a number belongs to, and that quotes are verbatim."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.documents.model import Document, Page, Section
from llmpipe.retrieval.chunks import Chunk
from llmpipe.retrieval.citations import Source, cite, claims, supported_share

pytestmark = pytest.mark.heavy  # the package regex is of the extra `rag`

KIOSK = "The kiosk opens at nine. It closes at eight in the evening.\n\nOn Sundays it stays closed."
POOL = "The pool costs 4.50 euros for adults. Children under twelve pay 2 euros."


def document(text: str, name: str = "a.md") -> Document:
    """Return a document of two pages: its first thirty characters and the rest."""
    pages = (Page(1, 0, 30), Page(2, 30, len(text)))
    return Document(
        name, f"Title of {name}", "text/plain", "", text, (Section((), 0, len(text)),), pages
    )


def source(number: int, text: str, before: str = "") -> Source:
    """Return a source whose document has some text before the chunk."""
    whole = document(before + text, f"{number}.md")
    start = len(before)
    chunk = Chunk(f"c{number}", whole.id, start, start + len(text), text, 9, ("Part",), (1, 9))
    return Source(number, chunk, whole)


def numbers(answer: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return the sentences of an answer with their numbers."""
    return [(answer[a:b], named) for (a, b), named in claims(answer)]


def test_a_number_belongs_to_the_sentence_that_it_ends() -> None:
    """Before or after the period; at the start of a line, it belongs to what follows."""
    assert numbers("It opens at nine [1]. It closes at eight. [2][3] Then?") == [
        ("It opens at nine [1].", (1,)),
        ("It closes at eight.", (2, 3)),
        ("Then?", ()),
    ]
    assert numbers("[2] It opens.\n\n[1] It closes.") == [("It opens.", (2,)), ("It closes.", (1,))]
    assert numbers("Twice [1] the same [1].") == [("Twice [1] the same [1].", (1,))]
    assert numbers("[1]") == []


def test_the_sentence_that_says_it_is_quoted() -> None:
    """The quote is the one sentence that supports the answer, with its own position and page."""
    (found,) = cite(
        "The kiosk closes at eight in the evening [1].", [source(1, KIOSK, "Preface. ")]
    )
    assert found.quote == "It closes at eight in the evening."
    assert (found.number, found.document, found.title) == (1, "1.md", "Title of 1.md")
    assert (found.start, found.pages, found.section) == (34, (2, 2), ("Part",))
    assert found.claim == (0, 45)
    assert found.support > 0.6
    assert not found.inferred


def test_several_sentences_are_quoted_where_each_adds_something() -> None:
    """A summary of two sentences quotes both; a third one that adds nothing is left out."""
    (found,) = cite("It opens at nine and closes at eight in the evening [1].", [source(1, KIOSK)])
    assert found.quote == "The kiosk opens at nine. It closes at eight in the evening."


def test_a_sentence_without_a_number_gets_the_source_that_says_it() -> None:
    """It is marked as inferred; a sentence that no source supports gets no citation."""
    sources = [source(1, KIOSK), source(2, POOL)]
    (found,) = cite("Children under twelve pay only 2 euros. The mayor likes chess.", sources)
    assert (found.number, found.inferred) == (2, True)
    assert found.quote == "Children under twelve pay 2 euros."
    assert cite("Yes.", sources) == ()


def test_an_inferred_source_has_the_quantities_of_the_sentence() -> None:
    """Regression: "The fee is 40 euros" got a passage that says 60. The sentence matters too."""
    sixty = source(1, "The fee is 60 euros.")
    assert cite("The fee is 40 euros.", [sixty]) == ()
    assert cite("The fee is not 60 euros.", [sixty]) == ()
    (found,) = cite("The fee is sixty euros.", [sixty])
    assert (found.quote, found.inferred) == ("The fee is 60 euros.", True)
    both = source(1, "The fee is 60 euros. A copy is 40 euros.")
    assert [c.quote for c in cite("A copy is only 40 euros.", [both])] == ["A copy is 40 euros."]
    right = source(2, "The yearly fee for residents is forty euros.")
    assert [c.number for c in cite("The fee is 40 euros.", [sixty, right])] == [2]
    (named,) = cite("The fee is 40 euros [1].", [sixty])
    assert not named.inferred


def test_the_rest_of_a_cut_answer_gets_no_source() -> None:
    """Its end is unknown."""
    sources = [source(1, "The Kestrel K2 is a survey drone. The drone carrier was repaired.")]
    answer = "The Kestrel K2 is a survey drone. The drone carrier was"
    assert [c.quote for c in cite(answer, sources, is_cut=True)] == [
        "The Kestrel K2 is a survey drone."
    ]
    assert len(cite(f"{answer} repaired.", sources, is_cut=True)) == 2


def test_units_are_known_by_all_their_names() -> None:
    """A table may say `min` where an answer says minutes."""
    table = source(1, "| Battery | Flight time |\n| --- | --- |\n| Arctic | 47 min |\n")
    (found,) = cite("The flight time of the Arctic battery is 47 minutes.", [table])
    assert found.quote == "| Arctic | 47 min |"


def test_a_row_of_a_table_is_quoted_by_its_column_names() -> None:
    """Also if the names are in the previous chunk; the quote is only the row."""
    rows = "| Anna | 40 euros |\n| Bob | 60 euros |\n"
    whole = source(1, f"| Name | Yearly fee |\n| --- | --- |\n{rows}")
    below = source(1, rows)
    below = Source(
        1, msgspec.structs.replace(below.chunk, header="| Name | Yearly fee |"), below.document
    )
    for one in (whole, below):
        (found,) = cite("Bob pays a yearly fee of 60 euros.", [one])
        assert (found.quote, found.inferred) == ("| Bob | 60 euros |", True)
        assert cite("Bob pays a yearly fee of 80 euros.", [one]) == ()


def test_words_are_compared_as_they_are_searched() -> None:
    """Scripts without spaces, vowel points, accents and names with punctuation."""
    for answer, text in (
        ("图书馆九点到六点开放。", "市图书馆早上九点到下午六点开放。"),
        ("قال محمد هذا اليوم.", "قال مُحَمَّد هذا اليوم."),
        ("Le cafe d'ete ferme tard.", "Le café d’été ferme tard."),
    ):
        (found,) = cite(answer, [source(1, text)])
        assert (found.quote, found.inferred) == (text, True)
    cpp = source(1, "Plugins of the editor are written in C#.")
    (found,) = cite(
        "Plugins of the editor are written in C++.",
        [cpp, source(2, "Plugins of the editor are written in C++.")],
    )
    assert found.number == 2


def test_what_shares_no_word_quotes_the_whole_source() -> None:
    """The number is trusted: the whole passage is quoted, with a support of 0."""
    (found,) = cite("Quite so [2].", [source(1, KIOSK), source(2, POOL)])
    assert found.quote == POOL
    assert found.support == 0


def test_numbers_that_are_no_source_are_passed_over() -> None:
    """Such a sentence counts as one without a number."""
    (found,) = cite("The kiosk opens at nine [7].", [source(1, KIOSK)])
    assert (found.number, found.inferred) == (1, True)


def test_the_share_of_supported_sentences() -> None:
    """A sentence counts once per answer, by its best quote; without citations there is no share."""
    sources = [source(1, KIOSK), source(2, POOL)]
    cited = cite("The kiosk opens at nine [1][2]. Elephants fly over Paris today [2].", sources)
    assert len(cited) == 3
    assert supported_share([cited]) == 0.5
    elsewhere = cite("Elephants flew over Berlin [2].", sources)
    assert elsewhere[0].claim == cited[0].claim
    assert supported_share([cited, elsewhere]) == 1 / 3
    assert supported_share([[]]) is None


def test_sources_that_an_answer_does_not_name_support_nothing() -> None:
    """An inferred citation exists only because it supports its sentence, so it is not counted."""
    sources = [source(1, KIOSK), source(2, POOL)]
    unnamed = cite("The kiosk opens at nine. Children under twelve pay 2 euros.", sources)
    assert [citation.inferred for citation in unnamed] == [True, True]
    assert supported_share([unnamed]) is None
    wrong = cite("The kiosk opens at nine. Elephants fly over Paris today [2].", sources)
    assert [citation.inferred for citation in wrong] == [True, False]
    assert supported_share([wrong]) == 0


@given(
    st.text(alphabet="abc .!?\n[]12é。", max_size=60),
    st.lists(st.text(alphabet="abc .!?\né。", min_size=1, max_size=60), min_size=1, max_size=3),
)
def test_quotes_are_the_documents_own_text(answer: str, texts: list[str]) -> None:
    """A quote is at its position in the document, inside its chunk, and always the same."""
    sources = [source(i, text, "x" * i) for i, text in enumerate(texts, 1)]
    found = cite(answer, sources)
    assert found == cite(answer, sources)
    for citation in found:
        named = sources[citation.number - 1]
        assert named.document.text[citation.start : citation.end] == citation.quote != ""
        assert named.chunk.start <= citation.start < citation.end <= named.chunk.end
        assert 0 <= citation.support <= 1
