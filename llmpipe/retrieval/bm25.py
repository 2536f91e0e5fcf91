"""Find passages by their words with BM25, through bm25s.

Words are runs of letters and digits, case folded and in one Unicode form, less the stop words of
the language, and stemmed; of Chinese and Japanese, which set no spaces, every character is a word.
A question is taken apart as the passages were: the settings lie beside the index. All files are
JSON or plain arrays; nothing is pickled.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from llmpipe.contracts import write_json
from llmpipe.errors import StageError, remake

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]

Language = Literal[
    "none", "danish", "dutch", "english", "french", "german", "italian", "norwegian",
    "portuguese", "russian", "spanish", "swedish", "turkish",
]  # fmt: skip
"""The languages of which both stop words and a stemmer are at hand; ``none`` has neither."""

QUESTION_WORDS = 1000
"""Words of a question that count; more make it slow and no clearer."""

_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")
_SETTINGS = "settings.json"


class Bm25Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How texts become words, and BM25's two parameters: saturation and weight of the length."""

    language: Language = "english"
    stemming: bool = True
    k1: float = 1.5
    b: float = 0.75


def words(text: str, form_of: Callable[[str], str]) -> Iterator[str]:
    """Give the words of a text one by one, in the form that `word_forms` gives them."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return filter(None, map(form_of, (match[0] for match in _WORDS.finditer(text))))


def word_forms(settings: Bm25Settings) -> Callable[[str], str]:
    """Give a function from a word to its stem, empty for a stop word.

    It remembers what it gave, and belongs to one thread: stemmers do not share theirs.
    """
    stop_words, stem = _stop_words(settings.language), _stemmer(settings)
    return functools.cache(lambda word: "" if word in stop_words else stem(word))


class Bm25:
    """An index of the words of passages, by row. Safe to use from several threads."""

    def __init__(self, index: Any, settings: Bm25Settings) -> None:
        self._index = index
        self.settings = settings

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        settings: Bm25Settings,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Bm25:
        """Index texts. ``progress`` is told how many are done."""
        import bm25s
        import numpy as np

        form_of = word_forms(settings)
        vocabulary = {"": 0}  # no word; an index of texts without any would be empty else
        ids: list[list[int]] = []
        for text in texts:
            ids.append([vocabulary.setdefault(w, len(vocabulary)) for w in words(text, form_of)])
            if len(ids) % 1000 == 0:
                progress(len(ids))
        index = bm25s.BM25(k1=settings.k1, b=settings.b, method="lucene")
        with np.errstate(invalid="ignore"):  # the mean length is 0 where no text has a word
            index.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        return cls(index, settings)

    @classmethod
    def open(cls, folder: Path) -> Bm25:
        """Open an index that `save` wrote; its arrays stay in their files.

        Raises:
            StageError: the folder holds none that can be read.
        """
        import bm25s
        import numpy as np

        try:
            settings = msgspec.json.decode((folder / _SETTINGS).read_bytes(), type=Bm25Settings)
            index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise StageError(
                f"{folder} cannot be read as a BM25 index: {error}",
                hint=remake("index"),
            ) from None
        # Plain arrays over the same memory: numpy makes a new mapping of every slice otherwise.
        index.scores = {
            name: np.asarray(part) if isinstance(part, np.memmap) else part
            for name, part in index.scores.items()
        }
        return cls(index, settings)

    def save(self, folder: Path) -> None:
        """Write the index into a folder."""
        self._index.save(folder, show_progress=False)
        write_json(folder / _SETTINGS, msgspec.to_builtins(self.settings))

    @property
    def count(self) -> int:
        """How many texts are indexed."""
        return int(self._index.scores["num_docs"])

    def scores(self, question: str) -> Scores:
        """Give every row's score for a question: 0 where no word of the question stands in it."""
        asked = itertools.islice(words(question, word_forms(self.settings)), QUESTION_WORDS)
        known = self._index.get_tokens_ids(list(asked))
        scores: Scores = self._index.get_scores_from_ids(known)
        return scores


def _stop_words(language: Language) -> frozenset[str]:
    if language == "none":
        return frozenset()
    from bm25s import stopwords

    name = "EN" if language == "english" else language.upper()
    return frozenset(getattr(stopwords, f"STOPWORDS_{name}"))


def _stemmer(settings: Bm25Settings) -> Callable[[str], str]:
    if settings.language == "none" or not settings.stemming:
        return str
    import Stemmer

    stem: Callable[[str], str] = Stemmer.Stemmer(settings.language).stemWord
    return stem
