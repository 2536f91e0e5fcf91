"""Parting reasoning from the answer: all the ways in which models write it, whole and in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpipe.backends.reasoning import (
    TAGS,
    Parter,
    Reply,
    Tags,
    may_reason,
    opened_by,
    part,
    part_unseen,
)

THINK = TAGS[0]
BITS = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "[THINK]", "[/THINK]", "<", "</", " ", "\n", "a", "th"]
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("text", "opened", "expected"),
    [
        ("Paris", None, Reply("Paris")),
        (" Paris \n", None, Reply("Paris")),
        ("", None, Reply("")),
        ("<think>\nHm.\n</think>\n\n Paris", None, Reply("Paris", "Hm.")),
        ("\n<think>Hm.</think>Paris", None, Reply("Paris", "Hm.")),
        ("<think>\n\n</think>\n\nParis", None, Reply("Paris")),
        ("<think>Hm, I", None, Reply("", "Hm, I", unfinished=True)),
        ("<think>Hm</thi", None, Reply("", "Hm</thi", unfinished=True)),
        ("<thi", None, Reply("<thi")),
        ("Hm.\n</think>\n\nParis", THINK, Reply("Paris", "Hm.")),
        ("</think>Paris", THINK, Reply("Paris")),
        ("Paris", THINK, Reply("", "Paris", unfinished=True)),
        ("Hm.</think>Paris </think>", THINK, Reply("Paris </think>", "Hm.")),
        ("[THINK]Hm.[/THINK]Paris", None, Reply("Paris", "Hm.")),
        ("[THINK]Hm.</think>Paris", None, Reply("", "Hm.</think>Paris", unfinished=True)),
        ("<|channel>thought\nHm.<channel|>Paris", None, Reply("Paris", "Hm.")),
        ("<think>a</think><think>b</think>c", None, Reply("c", "ab")),
        ("Write <think> and </think>.", None, Reply("Write <think> and </think>.")),
        ("<b>bold</b>", None, Reply("<b>bold</b>")),
    ],
)
def test_reasoning_stands_apart(text: str, opened: Tags | None, expected: Reply) -> None:
    """Opened by the prompt or by the model, closed or not, with these tags or those, or none."""
    assert part(text, opened) == expected


@pytest.mark.parametrize("tags", TAGS)
def test_every_known_pair_of_tags(tags: Tags) -> None:
    """Whichever tag opens it; and no opening tag is the beginning of another, which would win by its place."""
    assert part(f"{tags.start}Hm.{tags.end}Paris") == Reply("Paris", "Hm.")
    assert part(f"Hm.{tags.end}Paris", tags) == Reply("Paris", "Hm.")
    assert part_unseen(f"Hm.{tags.end}Paris") == Reply("Paris", "Hm.")
    assert [t for t in TAGS if t.start.startswith(tags.start)] == [tags]


@given(BITS, st.sampled_from([None, THINK, TAGS[6]]), st.integers(1, 7))
def test_the_pieces_do_not_matter(text: str, opened: Tags | None, size: int) -> None:
    """A stream cut anywhere parts as the whole text does."""
    parter = Parter(opened)
    found = [s for i in range(0, len(text), size) for s in parter.feed(text[i : i + size])]
    found += parter.close()
    reply = part(text, opened)
    assert "".join(words for words, thought in found if not thought).strip() == reply.answer
    assert "".join(words for words, thought in found if thought).strip() == reply.reasoning
    assert parter.reasoning == reply.unfinished


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "b", " ", "\n"]), max_size=12))
def test_nothing_is_lost(bits: list[str]) -> None:
    """Reasoning and answer hold every letter of the text, in order; only tags and space go."""
    for opened in (None, THINK):
        reply = part("".join(bits), opened)
        told = f"{reply.reasoning}{reply.answer}".replace("<think>", "").replace("</think>", "")
        assert "".join(told.split()) == "".join(bit for bit in bits if bit in "ab")
        assert not (reply.unfinished and reply.answer)


@given(st.text(alphabet="<>/thinka \n", max_size=40), st.text(alphabet="ab .", max_size=9))
def test_reasoning_and_answer_come_back(thought: str, answer: str) -> None:
    """What stands between the tags is the reasoning, whatever it is."""
    if THINK.end not in thought + THINK.end[:-1]:
        expected = Reply(answer.strip(), thought.strip())
        assert part(f"<think>{thought}</think>{answer}") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hm.\n</think>\n\nParis", Reply("Paris", "Hm.")),
        ("<think>Hm.</think>Paris", Reply("Paris", "Hm.")),
        ("Say <think> or </think>", Reply("Say <think> or </think>")),
        ("Paris", Reply("Paris")),
    ],
)
def test_a_text_whose_prompt_is_unknown(text: str, expected: Reply) -> None:
    """A closing tag alone shows that the prompt had opened it."""
    assert part_unseen(text) == expected


def test_half_a_character_is_no_part_of_a_cut_reply() -> None:
    """Some engines show the bytes of a character that was cut as U+FFFD, others leave them out."""
    assert part("Hi \ufffd", truncated=True) == part("Hi ", truncated=True)
    assert part("Hi \ufffd").answer == "Hi \ufffd"


@pytest.mark.parametrize(
    ("prompt", "question", "expected"),
    [
        ("user: Hi\nassistant:\n<think>\n", "Hi", THINK),
        ("user: t\nassistant:\n<think>", "t", THINK),
        ("user: Hi\nassistant:\n<think>\nOkay, ", "Hi", THINK),
        ("user: Hi\nassistant:\n<think>\n\n</think>\n\n", "Hi", None),
        ("user: What is <think>?\nassistant:\n", "What is <think>?", None),
        ("user: a <think> b\nassistant: c\nuser: Hi\nassistant:", "Hi", None),
        ("user: Hi\nassistant:[THINK]", "Hi", TAGS[6]),
        ("", "", None),
    ],
)
def test_what_a_prompt_leaves_open(prompt: str, question: str, expected: Tags | None) -> None:
    """A tag that the template opens, not one that somebody speaks of."""
    assert opened_by(prompt, question) == expected


def test_templates_that_know_of_reasoning() -> None:
    """Those that write a tag, or look for one in earlier answers."""
    assert may_reason("{{ m.content.split('</think>')[-1] }}")
    assert not may_reason("{{ m.content }}")
