"""Words: any script, what marks join, and that spelling one word two ways gives a common form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.words import bare, compounds, folded, plain_words

pytestmark = pytest.mark.heavy  # the package regex is of the extra `rag`


def forms(text: str, *, turkish: bool = False) -> set[str]:
    """Return all forms under which the words of a text can be found."""
    found = {word for compound in compounds(text, turkish=turkish) for word in compound}
    return found | set(map(bare, found))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("C++", ["c++", "c"]),
        ("(C#)", ["c#", "c"]),
        (".NET", [".net", "net"]),
        ("v1.2.3.", ["v1.2.3", "1.2.3", "v1", "2", "3"]),
        ("O_DIRECT", ["o_direct", "o", "direct"]),
        ("foo.bar()", ["foo.bar", "foo", "bar"]),
        ("e-mail", ["email", "e", "mail"]),
        ("sql-createtrigger", ["sqlcreatetrigger", "sql", "createtrigger"]),
        ("COVID-19", ["covid19", "covid", "19"]),
        ("2019-2020", ["2019-2020", "2019", "2020"]),
        ("--no-verify", ["--noverify", "no", "verify"]),
        ("TCP/IP", ["tcp/ip", "tcp", "ip"]),
        ("1,000", ["1,000", "1000", "1", "000"]),
        ("10⁶", ["10^6", "10", "6"]),
        ("m²", ["m^2", "m2", "m", "2"]),
        ("H₂O", ["h2o"]),
        ("l’eau", ["leau", "eau"]),
        ("100GB", ["100gb", "100", "gb"]),
        ("1,000km", ["1,000km", "1", "000km", "1,000", "1000", "000", "km"]),
        ("60km/h", ["60km/h", "60km", "h", "60", "km/h", "km"]),
        ("EUR60", ["eur60", "eur", "60"]),
        ("U.S.A.", ["u.s.a", "usa", "u", "s", "a"]),
        ("Ph.D.", ["ph.d", "phd", "ph", "d"]),
        ("3f2a9c", ["3f2a9c"]),
        ("학교에서", ["학교에서", "학교", "교에", "에서"]),
        ("日本語", ["日", "本", "語", "日本", "本語"]),
    ],
)
def test_a_compound_is_given_whole_and_in_parts(text: str, expected: list[str]) -> None:
    """Names of languages, flags, versions and numbers keep their marks; their parts count too."""
    assert list(compounds(text)) == [tuple(expected)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("résumé", "resume"),
        ("cœur", "coeur"),
        ("Ærøskøbing", "aeroskobing"),
        ("ёлка", "елка"),
        ("مُحَمَّد", "محمد"),
        ("الكتــاب", "الكتاب"),
        ("أحمد", "احمد"),
        ("שָׁלוֹם", "שלום"),
        ("צה״ל", 'צה"ל'),
        ("हिन्दी", "हिंदी"),
        ("ज़रूर", "जरूर"),
        ("com\u00adputer", "computer"),
        ("com\u00ad\n  puter", "computer"),
        ("zero\u200bwidth", "zerowidth"),
        ("می\u200cخواهم", "میخواهم"),
        ("İzmir", "izmir"),
        ("IĞDIR", "ığdır"),
        ("İzmir’de", "izmir"),
        ("٤٠", "40"),
        ("1\u00a0000", "1000"),
        ("O’Brien", "O'Brien"),
        ("don’t", "don't"),
        ("Stra\u00dfe", "STRASSE"),
        ("e\u0301te\u0301", "été"),
        ("ﬁle", "file"),
        ("e\u2011mail", "email"),
        ("U.S.A.", "USA"),
        ("U.S.", "US"),
        ("B.Sc.", "BSc"),
        ("С.С.С.Р.", "СССР"),
    ],
)
def test_two_spellings_of_a_word_meet(one: str, other: str) -> None:
    """Accents, vowel points, unseen characters, digits and capitals of other scripts."""
    assert forms(one) & forms(other)
    assert forms(one, turkish=True) & forms(other, turkish=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("100GB", "100 GB"),
        ("1.5TB", "1.5 TB"),
        ("1,000km", "1000 km"),
        ("10km²", "10 km²"),
        ("60km/h", "60 km/h"),
        ("10км", "10 км"),
        ("60유로", "60 유로"),
        ("٥كم", "5 كم"),
        ("5किमी", "5 किमी"),
        ("EUR60", "EUR 60"),
        ("Python3.11", "Python 3.11"),
        ("10-km", "10km"),
        ("1990s", "1990"),
    ],
)
def test_a_number_meets_itself_beside_its_unit(one: str, other: str) -> None:
    """With or without a space: the words of one spelling are all forms of the other."""
    assert {words[0] for words in compounds(other)} <= forms(one)


def test_turkish_tells_its_two_i_apart() -> None:
    """With `turkish` the capital of ı is I; the form without marks is common to both."""
    assert folded("IRMAK İZMİR", turkish=True) == "ırmak izmir"
    assert bare("ırmak") == "irmak"


@pytest.mark.parametrize(
    ("one", "other"),
    [("C++", "C#"), ("10⁶", "106"), ("が", "か"), ("की", "का"), ("мой", "мои"), ("v1.2.3", "123")],
)
def test_what_differs_stays_apart(one: str, other: str) -> None:
    """No fold goes so far that another word or number becomes the same."""
    whole, other_whole = (next(iter(compounds(text)))[0] for text in (one, other))
    assert bare(whole) != bare(other_whole)
    assert whole not in forms(other)


def test_plain_words_are_the_parts_alone() -> None:
    """As ROUGE compares them; marks of Indic scripts belong to their words."""
    assert plain_words("foo.bar हिन्दी में 日本 don't") == [
        "foo", "bar", "हिन्दी", "में", "日", "本", "don", "t",
    ]  # fmt: skip


@given(st.text(max_size=60))
def test_any_text_has_words_that_are_not_empty(text: str) -> None:
    """Whatever stands in it; words fold to themselves."""
    for compound in compounds(text):
        assert compound
        assert all(compound)
        assert len(set(compound)) == len(compound)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("在Python中使用", "python"),
        ("费用是60欧元", "60"),
        ("第12章", "12"),
        ("ราคา500บาท", "500"),
        ("版本v1.2.3发布", "v1.2.3"),
        ("Introduction........12", "12"),
        ("Hello …world", "world"),
        (".5 percent", "5"),
    ],
)
def test_words_are_found_beside_any_letter_or_mark(text: str, word: str) -> None:
    """Scripts without spaces end no word, and dots before one do not hide it."""
    assert word in forms(text)


@given(st.text(st.sampled_from("在中ไท.…-@ab12 é"), max_size=30))
def test_no_word_is_lost(text: str) -> None:
    """Every part is found, whatever stands beside it."""
    found = {form for compound in compounds(text) for form in compound}
    assert set(plain_words(text)) <= found
