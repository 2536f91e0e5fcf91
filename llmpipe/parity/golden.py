"""Chats and texts that both sides of an export must read in the same way.

They cover cases in which tokenizers and chat templates are known to differ: boundaries between
spaces, digits, letters and signs; scripts and emoji; special tokens written as text; empty and
padded contents. They do not measure the quality of a model's answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FRAGMENTS = (
    " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u200d", "a", "Ab", "été", "ß",
    "1", "23", "2026", "٣", "½", "日本", "กำ", "क्ष", "عربى", "😀", "👩‍👩‍👧",
    "'s", "'LL", "_", ".", "...", "--", "(", "{",
)  # fmt: skip
"""Pieces of text. Pre-tokenizers differ at boundaries, so every piece precedes every other."""

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces before, three after   ",
    "a  1 b   22\n\n 333   4444\t55555 3.14 1,000,000 1e-5 0x1F",
    "I'm you're he'd we'll they've IT'S it’s",
    "Ünïcödé ﬁ ligature, ½ ² ①, Ελληνικά, русский, עברית, العربية",
    "हिन्दी, ไทย, 中文，日本語、한국어",
    "e\u0301 is not é; \u200bzero\u200bwidth; non\u00a0breaking; \ufeffmark",
    "😀😃 👍🏽 👩‍👩‍👧‍👦 🇪🇸 ☎️ ™",
    "def f(x: int) -> str:\n    if x == 10:\n\t\treturn f\"{x:>4}\"\n    return '\\n'  # end\n",
    '{"city": "Madrid", "boxes": 13, "tags": [null, true, -0.5]}',
    "line one\nline two\r\nline three\n\n\n\nafter four newlines\n",
    "<b>html</b> [link](https://example.org/?q=1&r=2#x) | a | b |\n|---|---|",
    "------======******///\\\\\\ !!!??? …—–",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    " ",
    "\n",
)


@dataclass(frozen=True, slots=True)
class GoldenChat:
    """A chat that ends with a user's turn, and its name in messages."""

    name: str
    messages: tuple[dict[str, str], ...]


def golden_texts(special: Sequence[str] = ()) -> Iterator[tuple[str, str]]:
    """Yield named texts; the ``special`` tokens are put where they may be misread."""
    for number, text in enumerate(TEXTS, 1):
        yield f"text {number}", text
    for fragment in FRAGMENTS:
        yield f"seams of {fragment!r}", "|".join(fragment + other for other in FRAGMENTS)
    for token in special:
        yield f"token {token!r} in text", f"a{token}b {token} 1{token}\n{token}{token}"


def golden_chats(special: Sequence[str] = ()) -> list[GoldenChat]:
    """Return the golden chats; ``special`` are special tokens that users might type."""
    system = {"role": "system", "content": "Answer in one short sentence."}
    chats = [
        _chat("one turn", "Where is the Ebro?"),
        GoldenChat("system", (system, _user("What is 12 × 12?"))),
        GoldenChat("empty system", ({"role": "system", "content": ""}, _user("Hello"))),
        _chat("several turns", "Hi!", "Hello. How can I help?", "Spell “été”.", "é-t-é", "Thanks"),
        GoldenChat("system and turns", (system, *_turns("1+1?", "2", "And 2+2?"))),
        _chat("empty content", ""),
        _chat("padded content", "  two before, three after   "),
        _chat("newlines around", "\n\nquestion\n\n\n"),
        _chat("padded answer", "Say it.", "  it \n", "Again, please."),
        _chat("empty answer", "Say nothing.", "", "Thank you."),
        _chat("template signs", "{{ messages }} {% if x %} {# note #} {{'{{'}}"),
        *(_chat(f"content of text {number}", text) for number, text in enumerate(TEXTS, 1)),
    ]
    typed = "".join(f"{token} {token}x" for token in special)
    if typed:
        chats.append(_chat("special tokens as text", f"What does {typed} mean?"))
    return chats


def _chat(name: str, *contents: str) -> GoldenChat:
    return GoldenChat(name, _turns(*contents))


def _turns(*contents: str) -> tuple[dict[str, str], ...]:
    roles = itertools.cycle(("user", "assistant"))
    return tuple(
        {"role": role, "content": text} for role, text in zip(roles, contents, strict=False)
    )


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}
