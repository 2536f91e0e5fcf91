"""Search passages by their words with BM25, through the bm25s library.

Texts are split into words by `llmpipe.words`; stop words are dropped and the rest is stemmed. A
word with accents is found with and without them. Questions are processed with the same settings as
the passages, which are stored beside the index. All files are JSON or plain arrays; nothing is
pickled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from llmpipe.contracts import write_json
from llmpipe.errors import StageError, remake
from llmpipe.retrieval.arrays import DAMAGED
from llmpipe.words import bare, compounds, folded, remembering, unprefixed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]
    Rows = NDArray[np.int64]

Language = Literal[
    "none", "danish", "dutch", "english", "french", "german", "italian", "norwegian",
    "portuguese", "russian", "spanish", "swedish", "turkish",
]  # fmt: skip
"""Languages with both stop words and a stemmer; ``none`` uses neither."""

QUESTION_WORDS = 1000
"""How many words of a question are searched; more make the search slow and not more precise."""

_SETTINGS = "settings.json"


class Bm25Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How texts are split into words, and BM25's ``k1`` (saturation) and ``b`` (length weight)."""

    language: Language = "english"
    stemming: bool = True
    k1: float = 1.5
    b: float = 0.75


def terms_of(settings: Bm25Settings) -> Callable[[str], Iterator[str]]:
    """Return a function that yields the terms under which a text is indexed.

    Each word yields its stem, with and without accents; stop words yield nothing. The function
    caches its results and must stay on one thread, because stemmers are not thread-safe.
    """
    words = _words_of(settings)
    return lambda text: chain.from_iterable(
        forms[0] if len(forms) == 1 else dict.fromkeys(chain.from_iterable(forms))
        for forms in words(text)
    )


def _words_of(settings: Bm25Settings) -> Callable[[str], Iterator[list[tuple[str, ...]]]]:
    """Return a function that yields for each compound of a text the forms of each of its words."""
    stop_words, stem = _stop_words(settings.language), _stemmer(settings)
    turkish = settings.language == "turkish"
    stemmed = settings.language != "none" and settings.stemming

    @remembering
    def forms(word: str) -> tuple[str, ...]:
        if word in stop_words:
            return ()
        plain = bare(word)
        found = (word, plain, unprefixed(plain) if stemmed else plain)
        stems = (stem(f) if f.isalpha() else f for f in found if f not in stop_words)
        return tuple(dict.fromkeys(filter(None, stems)))

    return lambda text: (list(map(forms, words)) for words in compounds(text, turkish=turkish))


class Bm25:
    """A BM25 index of passages by row. It is thread-safe."""

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
        """Index texts; ``progress`` receives the number of texts done."""
        import bm25s
        import numpy as np

        terms = terms_of(settings)
        vocabulary = {"": 0}  # no word: without it, texts without words would give an empty index
        ids: list[list[int]] = []
        for text in texts:
            ids.append([vocabulary.setdefault(w, len(vocabulary)) for w in terms(text)])
            if len(ids) % 1000 == 0:
                progress(len(ids))
        index = bm25s.BM25(k1=settings.k1, b=settings.b, method="lucene")
        with np.errstate(invalid="ignore"):  # the mean length is 0 when no text has a word
            index.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        return cls(index, settings)

    @classmethod
    def open(cls, folder: Path) -> Bm25:
        """Open an index that `save` wrote; its arrays are memory-mapped.

        Raises:
            StageError: the folder does not contain a readable index.
        """
        import bm25s
        import numpy as np

        try:
            settings = msgspec.json.decode((folder / _SETTINGS).read_bytes(), type=Bm25Settings)
            index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        except (*DAMAGED, TypeError, KeyError, AttributeError) as error:
            raise StageError(
                f"{folder} cannot be read as a BM25 index: {error}",
                hint=remake("index"),
            ) from None
        # Use plain arrays over the same memory: NumPy makes a new mapping of every slice otherwise.
        index.scores = {
            name: np.asarray(part) if isinstance(part, np.memmap) else part
            for name, part in index.scores.items()
        }
        return cls(index, settings)

    def save(self, folder: Path) -> None:
        """Write the index to a folder."""
        self._index.save(folder, show_progress=False)
        write_json(folder / _SETTINGS, msgspec.to_builtins(self.settings))

    @property
    def count(self) -> int:
        """The number of indexed texts."""
        return int(self._index.scores["num_docs"])

    def scores(self, question: str) -> Scores:
        """Return the score of every row for a question; 0 when it shares no word with it."""
        asked = islice(terms_of(self.settings)(question), QUESTION_WORDS)
        known = self._index.get_tokens_ids(list(asked))
        scores: Scores = self._index.get_scores_from_ids(known)
        return scores

    def shares(self, question: str, rows: Sequence[int]) -> Scores:
        """Return for each of the given rows the share of the question's words that it contains.

        Each word is weighted by its inverse document frequency. A word that no row contains weighs
        as much as one that a single row contains. Any form of a word counts.
        """
        import numpy as np

        words = chain.from_iterable(_words_of(self.settings)(question))
        found, weight = np.zeros(len(rows), np.float32), 0.0
        for forms in dict.fromkeys(islice(filter(None, words), QUESTION_WORDS)):
            having = self._rows_with(forms)
            count = max(1, len(having))
            idf = math.log1p((self.count - count + 0.5) / (count + 0.5))
            found += idf * np.isin(rows, having)
            weight += idf
        return found / weight if weight else found

    def _rows_with(self, forms: Sequence[str]) -> Rows:
        """Return the rows that contain any of the given terms."""
        import numpy as np

        starts, rows = self._index.scores["indptr"], self._index.scores["indices"]
        known = self._index.get_tokens_ids(forms)
        parts = [rows[starts[term] : starts[term + 1]] for term in known]
        return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)


def _stop_words(language: Language) -> frozenset[str]:
    if language == "none":
        return frozenset()
    from bm25s import stopwords

    name = "EN" if language == "english" else language.upper()
    listed = getattr(stopwords, f"STOPWORDS_{name}")
    return frozenset(folded(word, turkish=language == "turkish") for word in listed)


def _stemmer(settings: Bm25Settings) -> Callable[[str], str]:
    if settings.language == "none" or not settings.stemming:
        return str
    import Stemmer

    stem: Callable[[str], str] = Stemmer.Stemmer(settings.language).stemWord
    return stem
