"""The generator: what it may cite, and how an endpoint's answers are restricted to that."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_endpoint import Endpoint

from llmpipe.backends.streaming import Usage
from llmpipe.errors import StageError
from llmpipe.retrieval.generator import (
    GeneratorConfig,
    citation_grammar,
    open_generator,
    without_other_numbers,
)

QUESTION = [{"role": "user", "content": "When does it open?"}]


def config(url: str = "https://example.org/v1", **fields: object) -> GeneratorConfig:
    """Return the config of an endpoint."""
    return GeneratorConfig(engine="openai", model="m", base_url=url, **fields)  # type: ignore[arg-type]


def kept(text: str, citations: int, *, size: int = 2) -> str:
    """Pass a text through the filter in pieces."""
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return "".join(map(str, without_other_numbers(pieces, citations)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("At nine [1]. At ten [3].", "At nine [1]. At ten."),
        ("Both [1, 2].", "Both [1][2]."),
        ("Both [2;7].", "Both [2]."),
        ("None [0][12].", "None."),
        ("None [11111], one [1, 22222].", "None, one [1]."),
        ("A list [a, b] and x[1] stay.", "A list [a, b] and x[1] stay."),
        ("It ends [1", "It ends [1"),
        ("Spaces   stay\n\n", "Spaces   stay\n\n"),
    ],
)
def test_only_numbers_of_sources_are_kept(text: str, expected: str) -> None:
    """However the text is split into pieces."""
    for size in (1, 2, 5, 100):
        assert kept(text, 2, size=size) == expected


@pytest.mark.slow
@given(st.text(alphabet="a [],;123\n", max_size=40), st.integers(1, 9))
def test_the_pieces_do_not_matter(text: str, size: int) -> None:
    """The result is that of the whole text, and contains only numbers of sources."""
    found = kept(text, 2, size=size)
    assert found == kept(text, 2, size=1000)
    assert set(re.findall(r"\[(\d+)\]", found)) <= {"1", "2"}


def test_the_usage_comes_last() -> None:
    """Text that was held back comes before it."""
    assert list(without_other_numbers(["a ", "[1", Usage(1, 2)], 1)) == ["a", " [1", Usage(1, 2)]


def test_the_grammar_names_the_numbers() -> None:
    """Up to the last source, as alternatives."""
    assert '"[" ("1" | "2" | "3") "]"' in citation_grammar(3)


@pytest.mark.heavy
def test_an_endpoint_answers_within_its_sources() -> None:
    """Its stream is filtered, its key revealed only for it, its tokens overestimated."""
    with Endpoint() as endpoint:
        endpoint.reply = lambda body: ("It opens at nine [1][4].", "stop")
        settings = config(endpoint.url, api_key="${secret:KEY}", max_tokens=9)
        with open_generator(settings, None, threads=1, reveal=lambda text: "k3y") as generator:
            *pieces, usage = generator.stream(QUESTION, citations=2)
            assert "".join(map(str, pieces)) == "It opens at nine [1]."
            assert isinstance(usage, Usage)
            assert generator.count_tokens(QUESTION) == 14
    assert endpoint.headers[0]["authorization"] == "Bearer k3y"
    assert endpoint.received[0]["max_tokens"] == 9
    assert endpoint.received[0]["temperature"] == 0


def test_fields_that_do_not_go_together_are_named() -> None:
    """Fields of another engine, and an answer that leaves no room for sources."""
    wrong = GeneratorConfig(engine="llama.cpp", model="m", base_url="ftp://x", max_tokens=2000)
    assert [field for field, _ in wrong.problems()] == ["base_url", "base_url", "max_tokens"]
    assert [field for field, _ in config(None).problems()] == ["base_url"]  # type: ignore[arg-type]
    assert list(config().problems()) == []


@pytest.mark.heavy
def test_an_endpoint_that_is_not_there_is_named() -> None:
    """The message contains its address."""
    with (
        open_generator(config("http://127.0.0.1:9/v1"), None, threads=1, reveal=str) as generator,
        pytest.raises(StageError, match=r"127\.0\.0\.1:9"),
    ):
        list(generator.stream(QUESTION, citations=1))
