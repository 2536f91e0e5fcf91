"""Which rows count as the same, and which give a held-out question away."""

from __future__ import annotations

from typing import Any

from llmpipe.formats import Conversation, Turn
from llmpipe.formats.leakage import QuotedQuestions, asked_in, content_key, question_key, words_of


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
