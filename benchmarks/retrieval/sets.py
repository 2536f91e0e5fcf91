"""Collections of questions, each with its own answer, made of what is already at hand.

Of pairs that share a question or an answer only the first is taken: else two could be right.
"""

from __future__ import annotations

import ast
import json
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from llmpipe.documents import rst
from llmpipe.evaluation.sampling import drawn

PYTHON_FAQ = Path(__file__).parents[2] / "examples" / "rag-docs" / "python-faq"

DOCSTRINGS = 300
"""How many of the standard library's docstrings are taken; there are some 650."""


class Pair(NamedTuple):
    """A question and the text that answers it."""

    question: str
    answer: str


def building_permits() -> Iterator[Pair]:
    """Return the questions and answers that the package zaragoza-construction-faq carries."""
    for line in _package_file("zaragoza_construction_faq", "data/faq-en-alpaca.jsonl"):
        row = json.loads(line)
        yield Pair(row["instruction"], row["output"])


def python_faq(folder: Path = PYTHON_FAQ) -> Iterator[Pair]:
    """Return the titles of the Python FAQ that ask something, each with what stands below it."""
    for page in sorted(folder.glob("*.rst")):
        found = rst.convert(page.read_bytes(), page.name)
        below: dict[str, list[str]] = {}
        for section in found.sections:
            question = next((title for title in section.path if title.endswith("?")), None)
            if question:
                text = found.text[section.start : section.end]
                below.setdefault(question, []).append(_without_heading(text, question))
        for question, texts in below.items():
            yield Pair(question, "\n\n".join(texts).strip())


def docstrings(folder: str = sysconfig.get_path("stdlib")) -> Iterator[Pair]:
    """Return the first paragraphs of public docstrings of the standard library, each with the rest.

    The files are read, nothing is imported.
    """
    for module in sorted(Path(folder).glob("[!_]*.py")):
        for node in ast.walk(ast.parse(module.read_bytes())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                first, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
                if 5 <= len(first.split()) <= 40 and len(rest.split()) >= 25:
                    yield Pair(" ".join(first.split()), rest)


def rare_words() -> Iterator[Pair]:
    """Return the same docstrings; the question is the longest word that no other one has."""
    texts = [f"{pair.question}\n\n{pair.answer}" for pair in _drawn_docstrings()]
    words = [
        {word.casefold(): word for word in re.findall(r"[^\W\d_]\w{4,}", text)} for text in texts
    ]
    holders = Counter(name for of_text in words for name in of_text)
    for text, of_text in zip(texts, words, strict=True):
        own = [word for name, word in of_text.items() if holders[name] == 1]
        if own:
            yield Pair(f"What is {max(own, key=lambda word: (len(word), word))}?", text)


def _drawn_docstrings() -> Iterable[Pair]:
    return drawn(unambiguous(docstrings()), DOCSTRINGS, 0)


SETS: Mapping[str, Callable[[], Iterable[Pair]]] = {
    "building permits": building_permits,
    "Python FAQ": python_faq,
    "docstrings": _drawn_docstrings,
    "rare words": rare_words,
}


def unambiguous(pairs: Iterable[Pair]) -> list[Pair]:
    """Leave out every pair whose question or answer stood before."""
    kept: list[Pair] = []
    seen: set[str] = set()
    for pair in pairs:
        keys = {f"question {_key(pair.question)}", f"answer {_key(pair.answer)}"}
        if pair.answer and not keys & seen:
            kept.append(pair)
        seen |= keys
    return kept


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def _without_heading(text: str, question: str) -> str:
    heading, _, rest = text.partition("\n")
    return rest.strip() if heading.strip("# ").strip() == question else text.strip()


def _package_file(package: str, path: str) -> list[str]:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"not installed: pip install {package.replace('_', '-')}")
    return (Path(spec.origin).parent / path).read_text("utf-8").splitlines()
