"""The golden chats and texts, and the small comparisons that need no model."""

from __future__ import annotations

import pytest

from llmpipe.parity.gate import first_difference
from llmpipe.parity.golden import FRAGMENTS, golden_chats, golden_texts


def test_every_chat_can_be_answered() -> None:
    """Chats end with the user and alternate roles, as most chat templates require."""
    for chat in golden_chats(["<|im_end|>"]):
        roles = [message["role"] for message in chat.messages]
        turns = roles[1:] if roles[0] == "system" else roles
        assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"], chat.name


def test_names_are_unique() -> None:
    """A failure names exactly one chat or text."""
    special = ["<a>", "<b>"]
    names = [chat.name for chat in golden_chats(special)]
    names += [name for name, _ in golden_texts(special)]
    assert len(names) == len(set(names))


def test_every_pair_of_fragments_meets() -> None:
    """Each piece of text comes directly before every other one."""
    together = "\0".join(text for _, text in golden_texts())
    assert all(a + b in together for a in FRAGMENTS for b in FRAGMENTS)


def test_special_tokens_are_typed_by_users() -> None:
    """Special tokens appear in a chat's content, next to text and to each other."""
    content = golden_chats(["<a>", "<b>"])[-1].messages[0]["content"]
    assert "<a> <a>x<b> <b>x" in content


@pytest.mark.parametrize(
    ("expected", "actual", "position"),
    [
        ([], [], None),
        ([1, 2], [1, 2], None),
        ([1, 2], [1, 3], 1),
        ([1, 2], [1], 1),
        ([], [1], 0),
        ("abc", "abcd", 3),
    ],
)
def test_first_difference(expected: list[int], actual: list[int], position: int | None) -> None:
    """A missing or additional end is a difference at the end of the shorter one."""
    assert first_difference(expected, actual) == position
