"""``llmpipe ask``: answer questions from the documents of a rag stage, with citations."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec

from llmpipe.cli.options import add_run, add_spec, open_pipeline, parser, print_json, whole_number
from llmpipe.cli.prompts import at_terminal
from llmpipe.documents.model import untitled
from llmpipe.errors import UsageError

if TYPE_CHECKING:
    from llmpipe.retrieval.answer import Answer, Answerer
    from llmpipe.retrieval.citations import Citation
    from llmpipe.retrieval.prompt import Turn

TITLE = 80
"""Characters of a title that are shown; the title of a row may be a whole question."""


def main(argv: list[str]) -> int:
    """Run the command."""
    arguments = parser(
        "ask",
        "Answer a question from the documents of a rag stage, and cite the passages used.\n"
        "Without a question, at a terminal, it asks for questions; each may refer to earlier ones.",
    )
    add_spec(arguments)
    add_run(arguments)
    arguments.add_argument(
        "question",
        metavar="QUESTION",
        nargs="?",
        help="the question; - reads it from standard input",
    )
    arguments.add_argument("--stage", metavar="STAGE", help="the rag stage, if there are several")
    arguments.add_argument(
        "-k",
        metavar="N",
        type=whole_number(at_least=1),
        help="number of passages for the model; the stage's by default",
    )
    arguments.add_argument("--json", action="store_true", help="print the answer as JSON")
    options = arguments.parse_intermixed_args(argv)
    question = _question(options.question, options.json)
    stage = ["--stage", options.stage] if options.stage else []
    command = ["ask", options.spec, *filter(None, [options.question]), *stage]
    with open_pipeline(options, command) as pipeline:
        answerer = pipeline.answering(options.stage).answerer
        if question is None:
            from llmpipe.cli.repl import converse

            converse(partial(_show, answerer, k=options.k))
        elif options.json:
            print_json(msgspec.to_builtins(answerer.answer(question, k=options.k)))
        else:
            _show(answerer, question, k=options.k)
    return 0


def _question(given: str | None, as_data: bool) -> str | None:
    """Return the question as typed; None to ask for questions at the terminal."""
    if given is None:
        if as_data or not at_terminal():
            why = (
                "--json takes a question" if as_data else "without a terminal, a question is needed"
            )
            hint = 'llmpipe ask SPEC "How do I …?"\nfrom standard input: llmpipe ask SPEC -'
            raise UsageError(why, hint=hint)
        return None
    if given == "-":
        given = sys.stdin.buffer.read().decode("utf-8", "replace")
    question = given.strip()
    if not question:
        raise UsageError("the question is empty", hint='llmpipe ask SPEC "How do I …?"')
    return question


def _show(
    answerer: Answerer, question: str, history: Sequence[Turn] = (), *, k: int | None
) -> Answer:
    """Print an answer and its citations, and return it."""
    from llmpipe.retrieval.hits import REASONS

    answer = _print_answer(answerer, question, history, k)
    if why := answer.words_alone():
        print(f"\nThe question was searched by words only: {REASONS[why]}.")
    _print_citations(answer)
    return answer


def _print_answer(
    answerer: Answerer, question: str, history: Sequence[Turn], k: int | None
) -> Answer:
    """Print an answer as it is written, and return it."""
    from llmpipe.retrieval.answer import Done, Token

    begun = False
    with closing(answerer.stream(question, history, k=k)) as events:
        for event in events:
            if isinstance(event, Token):
                text = event.text if begun else event.text.lstrip()
                begun = begun or bool(text)
                print(text, end="", flush=True)
            elif isinstance(event, Done):
                print("" if begun else event.answer.text)
                return event.answer
    raise AssertionError("an answer that is not cancelled is complete")


def _print_citations(answer: Answer) -> None:
    if answer.usage.truncated:
        print("\nThe answer was cut at generator.max_tokens.")
    if answer.reasoning:
        words = len(answer.reasoning.split())
        print(f"\nThe model reasoned first, in {words} words; --json shows them.")
    if answer.usage.unfinished:
        return
    for line in _listed(answer.citations):
        print(line)
    for sentence in _without_source(answer):
        print(f"\nNo source was found for: {sentence}")
    if not (answer.citations or answer.abstained):
        found = dict.fromkeys(hit.chunk.document for hit in answer.hits)
        print(f"\nNo source was found for this answer. Searched: {', '.join(found)}")


def _without_source(answer: Answer) -> Iterator[str]:
    """Yield the sentences of an answer without a citation, if others have one."""
    from llmpipe.retrieval.citations import claims, is_statement

    cited = {citation.claim for citation in answer.citations}
    for claim, _ in claims(answer.text) if cited else ():
        sentence = " ".join(answer.text[slice(*claim)].split())
        if claim not in cited and is_statement(sentence):
            yield sentence


def _listed(citations: Iterable[Citation]) -> Iterator[str]:
    """Yield the lines that list the sources of an answer, each passage once, by number."""
    shown = {(c.number, c.start, c.end): c for c in reversed(tuple(citations))}
    for _, citation in sorted(shown.items()):
        yield ""
        yield f"[{citation.number}] {_place(citation)}"
        quote = " ".join(citation.quote.split())
        yield from textwrap.wrap(quote, 96, initial_indent="    ", subsequent_indent="    ")


def _place(citation: Citation) -> str:
    names = filter(None, (_title(citation), *citation.section))
    parts = [citation.document, " › ".join(_short(name) for name, _ in groupby(names))]
    if citation.pages:
        first, last = citation.pages
        parts.append(f"page {first}" if first == last else f"pages {first}–{last}")
    parts.append(f"characters {citation.start}–{citation.end}")
    note = " (inferred: the answer names no source here)" if citation.inferred else ""
    return ", ".join(filter(None, parts)) + note


def _title(citation: Citation) -> str:
    """Return the title of a document; empty if it only repeats the name."""
    name, title = citation.document, citation.title
    made = (untitled(name), untitled(*name.split("#", 1)), untitled(*name.rsplit("#", 1)))
    return "" if title in made else title


def _short(title: str) -> str:
    """Return a title on one line, cut if it is long."""
    line = " ".join(title.split())
    return line if len(line) <= TITLE else f"{line[: TITLE - 1].rstrip()}…"
