"""The words of a text as rows are compared, and what no near-duplicate may differ in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from llmpipe.formats.leakage import PUNCTUATION, normalize
from llmpipe.stages.curate.steps import Protected
from llmpipe.words import plain_words, sets_spaces

_MARKS = PUNCTUATION.encode("ascii", "ignore")
_NO_MARKS = dict.fromkeys(map(ord, PUNCTUATION))

_DENYING = """
not no never none nobody nothing neither nor without cannot cant dont doesnt isnt arent wont
nicht nichts kein keine keinen keinem keiner keines nie niemals niemand ohne weder
ne pas jamais sans aucun aucune rien ni nunca jamás sin ningún ninguna ninguno nada nadie
non mai senza nessun nessuna nessuno niente não sem nem nenhum nenhuma niet geen nooit zonder
nie nigdy bez brak не нет ни никогда без ничего немає inte ingen inget aldrig ikke aldri
ei eikä nem nincs soha değil yok لا ليس لم لن غير 不 没 沒 未 無 无 非 否
"""
_COUNTING = """
zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
hundred thousand million billion half twice
null zwei drei vier fünf sechs sieben acht neun zehn elf zwölf zwanzig dreißig hundert tausend
deux trois quatre cinq sept huit neuf dix onze douze vingt trente cent mille
dos tres cuatro cinco siete ocho nueve diez once doce veinte treinta cien mil
tre quattro sei sette otto nove dieci dois três quatro sete oito dez
一 二 三 四 五 六 七 八 九 十 百 千 万
"""

NEGATIONS = frozenset(_DENYING.split())
"""Words that deny, in common languages of data sets. Letters of Chinese count alone."""

NUMBERS = frozenset(_COUNTING.split())
"""Words that count. The articles ``ein``, ``un`` and ``uno`` are left out: they rarely do."""


def compared_words(normal: str) -> list[bytes]:
    """Return the words of a normalized text without punctuation; ``3.5`` is ``35`` here."""
    if normal.isascii():
        return normal.encode().translate(None, _MARKS).split()
    if sets_spaces(normal):
        return normal.translate(_NO_MARKS).encode("utf-8", "surrogatepass").split()
    return [word.encode("utf-8", "surrogatepass") for word in plain_words(normal)]


def normal_words(text: str) -> tuple[bytes, list[bytes]]:
    """Return a text as duplicates are compared, and its words: `normalize` and `compared_words`."""
    if text.isascii():
        normal = " ".join(text.lower().split()).encode()
        return normal, normal.translate(None, _MARKS).split()
    whole = normalize(text)
    return whole.encode("utf-8", "surrogatepass"), compared_words(whole)


class Wording(NamedTuple):
    """The words of a row with their punctuation, in their order, and how often each is there."""

    words: list[str]
    counts: Counter[str]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Wording:
        """Return the words of the texts of a row's turns."""
        text = normalize(" ".join(texts)).replace("’", "'")
        is_spaced = text.isascii() or sets_spaces(text)
        words = text.split() if is_spaced else plain_words(text)
        return cls(words, Counter(words))


def differences(one: Wording, other: Wording, among: Iterable[Protected]) -> tuple[Protected, ...]:
    """Return in which of ``among`` two rows differ."""
    changed = _changed(one.counts, other.counts)
    found: dict[Protected, bool] = {
        "numbers": any(map(_counts, changed)),
        "negations": any(map(_denies, changed)),
        "order": not changed and [*map(_bare, one.words)] != [*map(_bare, other.words)],
    }
    return tuple(name for name in among if found[name])


def _changed(words: Counter[str], others: Counter[str]) -> set[str]:
    """Return the words that two rows do not have equally often, punctuation aside."""
    counts: Counter[str] = Counter()
    for word in {word for word, _ in words.items() ^ others.items()}:  # few, so that it is quick
        counts[_bare(word)] += words[word] - others[word]
    return {word for word, count in counts.items() if count}


def _bare(word: str) -> str:
    return word if word.isalnum() else word.strip(PUNCTUATION) or word


def _counts(word: str) -> bool:
    return word in NUMBERS or any(map(str.isdigit, word))


def _denies(word: str) -> bool:
    return word in NEGATIONS or word.endswith("n't") or word.startswith("n'")
