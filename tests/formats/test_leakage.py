"""Which rows count as the same, and which give a held-out question away."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmpipe.formats import Conversation, Turn
from llmpipe.formats.leakage import (
    PUNCTUATION,
    QuotedQuestions,
    asked_in,
    content_key,
    normalize,
    question_key,
    words_of,
)


def chat(question: str, answer: str = "Yes.", **keys: Any) -> Conversation:
    """One question and its answer."""
    return Conversation([Turn("user", question), Turn("assistant", answer, **keys)])


def words(example: Conversation) -> bytes:
    """The words of a question, as they are compared."""
    return words_of(asked_in(example))


def test_content_is_compared_normalized():
    """Case, white space and compatible forms do not make a row another one; words do."""
    assert content_key(chat("What  is\nﬁre?")) == content_key(chat("what is fire?"))
    assert content_key(chat("What is fire?")) != content_key(chat("What is fire"))
    assert content_key(chat("a", "b")) != content_key(chat("b", "a"))
    assert content_key(chat("Add 1 23.")) != content_key(chat("Add 12 3."))
    assert content_key(chat("add one", "two")) != content_key(chat("add", "one two"))
    called = [chat("a", "", tool_calls=[{"function": {"name": name}}]) for name in ("f", "g")]
    assert len({content_key(each) for each in called}) == 2
    assert content_key(Conversation(called[0].turns, [{"name": "f"}])) != content_key(called[0])


def test_questions_are_compared_without_outer_punctuation():
    """A question mark more or less is the same question; an operator is not."""
    same = [question_key(words(chat(q))) for q in ("Is it so?", "is it so", '"Is it so"')]
    assert len(set(same)) == 1
    other = {question_key(words(chat(q))) for q in ("3+4", "3*4", "C", "C++", "x < 5")}
    assert len(other) == 5


def test_quoted_question_is_found():
    """A held-out question of eight words or more is found inside a longer one, whole only."""
    held = words(chat("How long does it take to get a building permit?"))
    quoted = QuotedQuestions([held, words(chat("What is it?"))])
    inside = "Please explain: how long does it take to get a building permit, in Spain and Sweden?"
    texts = [inside, "How long does it take to get a building?", "Tell me: what is it?"]
    assert quoted.quoting([words(chat(text)) for text in texts]) == {0}


SOME = st.text(st.sampled_from([*"aB1?.(' \n\t\x1f\0-", "ß", "ﬁ", "“", "\u0301", "\u00a0"]))


@given(st.lists(SOME, max_size=3))
def test_words_are_stripped_one_by_one(texts: list[str]) -> None:
    """The words of common texts, found in fewer steps, are those of the rules for all texts."""
    found = " ".join(map(normalize, texts)).split()
    bare = " ".join(word.strip(PUNCTUATION) or word for word in found)
    assert words_of(texts) == bare.encode()


WORDS = st.lists(st.sampled_from([b"a", b"of", b"the", b"straight", b"permit"]), max_size=25)


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=4), st.data())
def test_any_quoted_question_is_found(
    held: list[list[bytes]], others: list[list[bytes]], data: st.DataObject
) -> None:
    """Wherever a text is cut, exactly the texts that contain a long held-out question are found."""
    insides = [[*pair[0], *question, *pair[1]] for question in held
               for pair in [(data.draw(WORDS), data.draw(WORDS))]]  # fmt: skip
    texts = [b" ".join(words) for words in [*others, *insides, *held]]
    long = [b" %b " % b" ".join(words) for words in held if len(words) >= 8]
    expected = {i for i, text in enumerate(texts) if any(q in b" %b " % text for q in long)}
    questions = QuotedQuestions(b" ".join(words) for words in held)
    assert questions.quoting(texts) == expected
