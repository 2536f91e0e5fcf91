"""Guess the encoding of bytes that are not UTF-8 and have no declared encoding.

Byte statistics need long texts. Instead, each encoding is tried with the languages written in it:
their letters must occur where letters are expected, and their most common words add to the score.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

SAMPLE = 1 << 20
"""How many bytes are examined."""

MOST_WORDS = 2000
"""How many words are examined."""

LEAST = 0.35
"""The score below which no language matches."""

FEW = 50
"""Up to this many bytes beyond ASCII are too few to identify a language; most texts are cp1252."""


OWN = {
    "bg": "cp1251", "cs": "cp1250", "el": "cp1253", "he": "cp1255", "hr": "cp1250", "hu": "cp1250",
    "ar": "cp1256", "fa": "cp1256", "ja": "cp932", "ko": "cp949", "lt": "cp1257", "lv": "cp1257",
    "pl": "cp1250", "ro": "cp1250", "ru": "cp1251", "sk": "cp1250", "sl": "cp1250", "sr": "cp1251",
    "th": "cp874", "tr": "cp1254", "uk": "cp1251", "zh": "gb18030",
}  # fmt: skip
"""The legacy encoding of languages that did not use cp1252."""


class Guess(NamedTuple):
    """An encoding and its probability from 0 to 1."""

    encoding: str
    sure: float


class _Language(NamedTuple):
    """Letters beyond ASCII, common words, and frequent pairs of letters of a language.

    Letters of scripts other than Latin are ordered by frequency.
    """

    encoding: str
    letters: str
    words: str = ""
    pairs: str = ""
    prior: float = 0


_RUSSIAN = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё"
_RUSSIAN_WORDS = "и в не на что с по это как от за для"

_LANGUAGES = (
    _Language("cp1252", "äöüß", "der die das und ist nicht ein eine mit von zu den im auf preis"),
    _Language("cp1252", "àâçéèêëîïôùûœ", "le la les des et est une un pour dans que du en sur"),
    _Language("cp1252", "áéíñóúü¿¡", "el la los las de que y a en un una es por con para del no"),
    _Language("cp1252", "ãáàâçéêíóôõú", "o a os as de que e do da em um uma para com não"),
    _Language("cp1252", "àèéìòù", "il la di che e un una per con del in non sono"),
    _Language("cp1252", "åäöæøé", "och att det som en er den av af med til ikke for til i"),
    _Language("cp1252", "ëïéèöü", "de het een en van is dat in op te voor niet met"),
    _Language("cp1252", "éèïñüö", "the of and a to in is that for it with as on at by"),
    _Language("cp1252", "áðéíóúýþæö", "og er sem ekki til um"),
    _Language(
        "cp1250", "ąćęłńóśźż", "w i z na do nie jest to od po za jak o a dla przez cena",
        "sz cz rz dz ow wy",
    ),
    _Language("cp1250", "áčďéěíňóřšťúůýž", "a je se na v to do s z k pro i od po ale jsou cena"),
    _Language("cp1250", "áäčďéíĺľňóôŕšťúýž", "a je sa na v to do s z k pre aj od po ale cena"),
    _Language(
        "cp1250", "áéíóöőúüű", "a az egy hogy nem van meg de ez ha is csak mint", "sz gy zs cs ly"
    ),
    _Language("cp1250", "ăâîşţ", "de la cu nu un o din pe care sau pentru este"),
    _Language("cp1250", "čćđšž", "i je u na se da za od su s o ne to"),
    _Language("cp1254", "çğıöşüİâ", "ve bir bu da de ne ama gibi daha o fiyat en"),
    _Language("cp1257", "āčēģīķļņšūžąęėįųõäöü", "un ir no ar par kas ja on ei see kai su iki"),
    _Language("cp1251", _RUSSIAN, _RUSSIAN_WORDS),
    _Language("cp1251", "оанивтесрлкіумпдязьбгйчхцїєжющшфґ", "і в не на що з по це як від за для"),
    _Language("koi8-r", _RUSSIAN, _RUSSIAN_WORDS, prior=-0.05),
    _Language("cp866", _RUSSIAN, _RUSSIAN_WORDS, prior=-0.1),
    _Language("iso8859_5", _RUSSIAN, _RUSSIAN_WORDS, prior=-0.2),
    _Language("cp1253", "αοιετνσηρπκμλςυόίάήθγέδχώωφβξζύψϊ", "και το να της η ο τα με για του"),
    _Language("cp1255", "יוהלארתבשמנםעדחקפגטכזסןצךץף", "של את על לא הוא זה עם כי"),
    _Language("cp1256", "الينمهوترسبدكعفحقشجصةخىذأطزثضظغءإئؤآ", "في من على إلى أن هذا ما لا عن هو"),
    _Language("cp874", "านรกอเงมยลวดทสตะคปบิีแหใชพจขัํุูโไ่้็์ถผฟซญธศณษภฉฐฝฮ"),
)  # fmt: skip

_BEYOND_ASCII = bytes(range(0x80, 0x100))

_ASIAN = ("cp932", "euc_jp", "gb18030", "big5", "cp949")

_WORD = re.compile(r"\S*[^\x00-\x7f]\S*")
_ANY_WORD = re.compile(r"\w+")
_INSIDE = re.compile(
    r"(?<=\w)[^\w\s\x00-\x7f’'·­\u0300-\u036f\u0591-\u05c7\u064b-\u0652\u0e31-\u0e4e-]+(?=\w)"
    r"|(?<=[^\W\d_])[ªº¹²³µ](?=[^\W\d_])"
    r"|\d[^\W\d_\x00-\x7f]|[^\W\d_\x00-\x7f]\d"
)
"""Signs and unusual letters at positions where no language has them."""
_SIGNS = re.compile(
    rb"""(?xs)[\x80-\xff](?:
        (?<![A-Za-z\x80-\xff].)(?:
            (?<=[\x80\x84-\x87\x89\x91-\x97\x99\xa0-\xa3\xa5-\xa7\xa9\xab-\xb1\xb6\xb7\xbb-\xbf\xd7\xf7])
                [\x96\x97]?(?:(?<=\xb0)[CFK])?  # 20 deg C and others
          | (?<=[\x96\x97])[\x80\xa3\xa5]       # a dash and a price
          | (?<=\xb5)[gmslLAFHMNVW]             # units of a millionth
        )
      | (?<=[0-9)][\xaa\xb2\xb3\xb9\xba])       # powers, ordinals
      | (?<=[mxy][\xb2\xb3])(?<![A-Za-z\x80-\xff]..)
      | (?<=[cdkmn]m[\xb2\xb3])(?<![A-Za-z\x80-\xff]...)
      | (?<=[A-Za-z][\x99\xa9\xae])             # trade marks
    )(?![@-~\x80-\xff])"""
)
"""Bytes where cp1252 has a sign in its usual place, and no other encoding has a letter."""

_CONTROL = re.compile(r"[\x80-\x9f]")
_FINALS = re.compile(r"[םןץףךς]\b")
_NO_FINALS = re.compile(r"[םןץףךς]\B|\wσ\b")
_MARKS = set("€£§°©®™«»„“”‚‘’‹›–—…•·¿¡½¼¾²³ªº×±µ№\xa0\xad")


def guess(data: bytes, language: str = "") -> Guess | None:
    """Return the encoding that matches best, or None.

    Args:
        data: bytes that are not UTF-8.
        language: the code of the language that the text declares.
    """
    sample = data[:SAMPLE]
    words = _SIGNS.sub(b" ", sample)
    if words.isascii() and _decoded(sample, "cp1252") is not None:
        return Guess("cp1252", 0.6)
    encodings = dict.fromkeys([*(one.encoding for one in _LANGUAGES), *_ASIAN])
    whole = {name: text for name in encodings if (text := _decoded(sample, name)) is not None}
    scores: dict[str, float] = {}
    for one in _LANGUAGES:
        if one.encoding in whole and (text := _decoded(words, one.encoding)) is not None:
            score = _alphabetic(text, one)
            scores[one.encoding] = max(score, scores.get(one.encoding, -9))
    for encoding in _ASIAN:
        if encoding in whole and (text := _decoded(words, encoding)) is not None:
            scores[encoding] = _asian(text, encoding)
    own = OWN.get(language[:2].lower())
    if own in scores:
        scores[own] += 0.3
    best = max(scores, key=scores.__getitem__, default="")  # the first of equals is most common
    beyond = len(words) - len(words.translate(None, _BEYOND_ASCII))
    if not best or scores[best] < LEAST:
        is_western = beyond <= min(FEW, len(words) // 3) and "cp1252" in scores
        return Guess("cp1252", 0.3) if is_western else None
    others = [score for name, score in scores.items() if whole[name] != whole[best]]
    margin = scores[best] - max(others, default=0)
    most = 1 - 1 / (beyond + 2)  # the certainty that so few bytes allow
    return Guess(best, round(min(most, 0.99, 0.5 + margin / 2 * min(1, scores[best])), 2))


def _decoded(sample: bytes, encoding: str) -> str | None:
    for cut in range(3 if encoding in _ASIAN and len(sample) == SAMPLE else 1):
        try:
            return sample[: len(sample) - cut].decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def _alphabetic(text: str, language: _Language) -> float:
    """Score a text for a language with an alphabet."""
    weights = _weights(language)
    score = total = 0.0
    for _, match in zip(range(MOST_WORDS), _WORD.finditer(text), strict=False):
        word = match[0]
        points, letters = _word(word, weights, is_latin="a" in weights)
        score += points - 2 * len(_INSIDE.findall(word)) - 3 * len(_CONTROL.findall(word))
        score += 0.5 * len(_FINALS.findall(word)) - len(_NO_FINALS.findall(word))
        total += letters
    return (score / total if total else 0) + _familiar(text, language) + language.prior


@cache
def _weights(language: _Language) -> dict[str, float]:
    """Return how much each letter speaks for a language."""
    if language.letters[0] < "\u0250":
        own = dict.fromkeys(language.letters + language.letters.upper(), 1.0)
        return own | dict.fromkeys("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", 0.0)
    step = 0.6 / len(language.letters)
    weights = {letter: 1.2 - step * at for at, letter in enumerate(language.letters)}
    return weights | {letter.upper(): weight for letter, weight in weights.items()}


def _word(word: str, weights: dict[str, float], *, is_latin: bool) -> tuple[float, int]:
    """Score a word; also return how many of its characters are not ASCII."""
    score, total, before = 0.0, 0, ""
    alone = sum(letter.isalpha() for letter in word) == 1
    for letter in word:
        if letter > "\x7f":
            total += 1
            if letter in weights:
                score += 0.4 if alone and not is_latin else weights[letter]
            elif letter in _MARKS:
                score += 0.5
            else:
                score -= 0.5 if letter.isalpha() else 1
        if before.islower() and letter.isupper():
            score -= 1.5
        if not is_latin and before.isalpha() and letter.isalpha():
            score -= 2 * ((before > "\x7f") != (letter > "\x7f"))
        before = letter
    return score, total


def _familiar(text: str, language: _Language) -> float:
    """Return up to 0.5 for the share of a language's most common words and letter pairs."""
    known, pairs = set(language.words.split()), language.pairs.split()
    words = _ANY_WORD.findall(text[:20_000].lower())
    if not words:
        return 0
    hits = sum(word in known for word in words)
    paired = sum(any(pair in word for pair in pairs) for word in words if len(word) > 2)
    return min(0.5, 2 * (hits + 0.3 * paired) / len(words))


def _asian(text: str, encoding: str) -> float:
    """Score a text for Chinese, Japanese or Korean by the share of common characters."""
    common = _common(encoding)
    total = score = 0.0
    before = ""
    for letter in text[: 5 * MOST_WORDS]:
        if letter > "\x7f":
            total += 1
            score += common(letter)
            if before.isascii() and before.isalpha():
                score -= 1.5
        elif letter.isalpha() and before > "\x7f" and before.isalpha():
            score -= 0.5
        before = letter
    return score / total if total else 0


@cache
def _common(encoding: str) -> Callable[[str], float]:
    """Return a function that scores how much a character speaks for an encoding."""
    plain = set("、。，．！？；：「」『』（）《》“”‘’　…—・ー％")
    often = {
        "gb18030": "的一是不了在人有我他这中大来上国个到说们为子和你地出道也时年",
        "big5": "的一是不了在人有我他這中大來上國個到說們為子和你地出道也時年",
    }.get(encoding, "")
    lead, trail = {
        "gb18030": ("gb2312", (0xB0, 0xD7)),
        "big5": ("big5", (0xA4, 0xC6)),
        "cp949": ("euc_kr", (0xB0, 0xC8)),
        "cp932": ("euc_jp", (0xB0, 0xCF)),
        "euc_jp": ("euc_jp", (0xB0, 0xCF)),
    }[encoding]
    japanese = encoding in ("cp932", "euc_jp")

    def score(letter: str) -> float:
        if letter in plain:
            return 0.6
        if letter in often:
            return 1.5
        if japanese and "ぁ" <= letter <= "ヿ":
            return 1.2
        try:
            first = letter.encode(lead)[0]
        except UnicodeEncodeError:
            return -1
        if "\ue000" <= letter <= "\uf8ff":
            return -3
        if not letter.isalpha() or not trail[0] <= first <= trail[1]:
            return -0.5
        return 1.1 if encoding == "cp949" else 0.8 if japanese else 1

    return score
