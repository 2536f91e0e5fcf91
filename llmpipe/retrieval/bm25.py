"""Find passages by their words with BM25, through bm25s.

Words are those of `llmpipe.words`, less the stop words of the language, and stemmed; a word with
accents is found with and without them. A question is taken apart as the passages were: the settings
lie beside the index. All files are JSON or plain arrays; nothing is pickled.
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
"""The languages of which both stop words and a stemmer are at hand; ``none`` has neither."""

QUESTION_WORDS = 1000
"""Words of a question that count; more make it slow and no clearer."""

_SETTINGS = "settings.json"


class Bm25Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How texts become words, and BM25's two parameters: saturation and weight of the length."""

    language: Language = "english"
    stemming: bool = True
    k1: float = 1.5
    b: float = 0.75


def terms_of(settings: Bm25Settings) -> Callable[[str], Iterator[str]]:
    """Return a function from a text to the terms that it is indexed under, one by one.

    A word counts by its stem, and without its accents too; stop words do not count. The function
    remembers what it gave, and belongs to one thread: stemmers do not share theirs.
    """
    words = _words_of(settings)
    return lambda text: chain.from_iterable(
        forms[0] if len(forms) == 1 else dict.fromkeys(chain.from_iterable(forms))
        for forms in words(text)
    )


def _words_of(settings: Bm25Settings) -> Callable[[str], Iterator[list[tuple[str, ...]]]]:
    """Return a function from a text to its compounds: the forms of each of their words."""
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

        terms = terms_of(settings)
        vocabulary = {"": 0}  # no word; an index of texts without any would be empty else
        ids: list[list[int]] = []
        for text in texts:
            ids.append([vocabulary.setdefault(w, len(vocabulary)) for w in terms(text)])
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
        except (*DAMAGED, TypeError, KeyError, AttributeError) as error:
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
        asked = islice(terms_of(self.settings)(question), QUESTION_WORDS)
        known = self._index.get_tokens_ids(list(asked))
        scores: Scores = self._index.get_scores_from_ids(known)
        return scores

    def shares(self, question: str, rows: Sequence[int]) -> Scores:
        """Return for each of some rows the share of the question's words that stand in it.

        A word weighs as much as its inverse document frequency, one that stands in no row as much
        as one that stands in one. It is found by any of its forms.
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
        """Return the rows that hold any of some terms."""
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
