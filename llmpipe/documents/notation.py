"""Write powers, indices, fractions and note marks as plain text.

Raised and lowered characters have a meaning: 2³¹ is not 231, a raised 3 after a word refers to a
note, and a fraction such as ½ keeps its bar. A chemical index is written in line (H2O), as people
search for it. If the page does not say what a raised number is, the word before it decides: after a
digit, a variable or a unit it is a power, after any other word a note mark.
"""

from __future__ import annotations

import re
import unicodedata

NOTE_MARK = re.compile(r"\(?\d{1,3}(?:\s?[,;–-]\s?\d{1,3})*\)?|[*†‡§¶‖#]+|[a-h]\)?|[ivx]{1,4}")
"""Note marks."""

MEASURED = {
    "acre", "alpha", "angstrom", "atm", "bar", "beta", "cal", "centimeter", "centimeters",
    "centimetre", "centimetres", "chi", "cos", "cosh", "cot", "csc", "decimeter", "decimeters",
    "delta", "det", "dim", "epsilon", "eta", "exp", "feet", "foot", "gal", "gamma", "inch",
    "inches", "kappa", "kilometer", "kilometers", "kilometre", "kilometres", "kpa", "lambda", "lim",
    "log", "max", "meter", "meters", "metre", "metres", "metro", "metros", "mile", "miles",
    "millimeter", "millimeters", "millimetre", "millimetres", "min", "mol", "mph", "mètre",
    "mètres", "omega", "phi", "pixel", "pixels", "psi", "rad", "rho", "sec", "second", "seconds",
    "sigma", "sin", "sinh", "tan", "tanh", "tau", "theta", "var", "yard", "yards", "zeta",
}  # fmt: skip
"""Words of three or more letters that can have powers: units, functions, names of letters."""

SHORT_WORDS = {"am", "an", "as", "at", "be", "by", "do", "go", "he", "if", "is", "it", "me", "my",
               "no", "of", "on", "or", "so", "to", "up", "us", "we"}  # fmt: skip
"""Two-letter words that are neither units nor products of variables."""

SUFFIXES = {"st", "nd", "rd", "th", "er", "re", "e", "ère", "è", "ème", "ième", "eme", "nde",
            "ª", "º", "a", "de", "ste"}  # fmt: skip
"""Raised suffixes that make a number an ordinal."""

ABBREVIATED = {"me", "mes", "le", "lle", "lles", "gr", "ie", "te", "rs", "sr", "os"}
"""Raised endings of abbreviated words: Mme, Mgr, Cie."""

SIGNS = {"TM": "™", "tm": "™", "SM": "℠", "™": "™", "℠": "℠", "®": "®", "©": "©", "(R)": "®"}

_MONEY = (
    r"(?:[$€£¥₹₽₺₩₪₴₫฿¢]|\b(?:AUD|CAD|CHF|CNY|CZK|DKK|EUR|GBP|HUF|INR|JPY|NOK|PLN|SEK|USD"
    r"|dollars?|euros?|Fr\.|kr\b|Kč|lei|zł))"
)
_MONEY_FIRST = re.compile(rf"{_MONEY}\s?$")
_MONEY_LAST = re.compile(rf"\s?{_MONEY}")
_AMOUNT = re.compile(r"(?<![\w.,])(\d[\d.,’']*)([$€£¥]?)$")
_CENTS = re.compile(rf"([.,]?)(?:\d\d|[–—-]{{1,2}})(?P<sign>\s?{_MONEY})?|(?P<between>[$€£¥])\d\d")
_HAS_CENTS = re.compile(r"[.,]\d{1,2}$")
_NEW_SENTENCE = re.compile(r"\s*(?:$|[^\W\d_a-z])")

LARGE = {"6", "9", "12", "15", "18"}
"""Powers of ten in which amounts are given."""

_WORD = re.compile(r"[^\W\d_]+$")
_ORDINARY = re.compile(r"[^\W\d_]{3,}")
_ATOM = re.compile(r"[+−–-]?[\w.,′]+[+−–-]?|[+−–-]|\([^()]*\)|\[[^\[\]]*\]")
_ELEMENT = re.compile(r"(?:(?<![a-z])[A-Z][a-z]?|[)\]])$")
_ISOTOPE = re.compile(r"[A-Z][a-z]?(?![a-z])")
_ROMAN = re.compile(r"(?<!\w)[IVXLC]+$")
_BRACKETED = re.compile(r"\[(.*)\]|\((.*)\)")
_IDEOGRAPHS = re.compile(r"[぀-ヿ㐀-鿿가-힣]$")


def raised(before: str, content: str, after: str = "", *, is_note: bool = False) -> str:
    """Return how a superscript is written in line.

    Args:
        before: the text before it in its paragraph.
        content: the superscript.
        after: the text after it.
        is_note: whether the file marks it as a note mark.
    """
    content = " ".join(content.split())
    base = "".join(letter for letter in before if not unicodedata.combining(letter)).rstrip()
    if not content:
        return ""
    if content in SIGNS:
        return SIGNS[content]
    if is_note or _BRACKETED.fullmatch(content):
        return _note(before, content, after)
    priced = _priced(base, content, after)
    if priced is not None:
        return priced
    if _ends_a_word(before, content, after):
        return content
    if base[-1:].isdigit() and (
        content in ("o", "°", "º") or (content == "0" and after.lstrip()[:1] in ("C", "F"))
    ):
        return "°"
    begins_word = not base or before[-1].isspace()
    if begins_word and content.isdigit() and _ISOTOPE.match(after):
        return f"^{content}"
    if NOTE_MARK.fullmatch(content) and not _has_powers(base, content):
        return _note(before, content, after)
    if _is_prose(before, content):
        return _apart(before, content, after)
    return _marked("^", content, after)


def lowered(before: str, content: str, after: str = "") -> str:
    """Return how a subscript is written in line; see `raised`."""
    content = " ".join(content.split())
    if not content:
        return ""
    flows_on = after[:1].isdigit()
    if re.fullmatch(r"[\d.,]+", content) and _ELEMENT.search(before) and not flows_on:
        return content
    if content == "x" and before.endswith(("NO", "SO")):
        return content
    if _is_prose(before, content):
        return _apart(before, content, after)
    return _marked("_", content, after)


def fraction(above: str, below: str) -> str:
    """Return a fraction with its bar."""
    return f"{grouped(above)}/{grouped(below)}"


def stacked(above: str, below: str, *, in_brackets: bool = False) -> str:
    """Return two expressions above each other without a bar; a binomial if in parentheses."""
    between = "choose" if in_brackets else "over"
    line = f"{grouped(above)} {between} {grouped(below)}"
    return line if in_brackets else f"({line})"


def power(base: str, exponent: str) -> str:
    """Return a power, or a letter with primes."""
    if set(exponent) <= set("′″‴'*†"):
        return base + exponent
    return f"{grouped(base)}^{grouped(exponent)}"


def indexed(base: str, index: str) -> str:
    """Return a letter with its index."""
    return f"{base}_{grouped(index)}" if index else base


def root(radicand: str, degree: str = "") -> str:
    """Return a root; without a degree it is a square root."""
    if degree and degree != "2":
        return f"{grouped(radicand)}^(1/{grouped(degree)})"
    return f"√{grouped(radicand)}" if radicand else "√"


def grouped(text: str) -> str:
    """Return an expression in parentheses, unless it is a single number, letter or word."""
    text = text.strip()
    return text if not text or _ATOM.fullmatch(text) else f"({text})"


def _priced(base: str, content: str, after: str) -> str | None:
    """Return what is raised after an amount of money, cents or a note mark, else None."""
    found = _AMOUNT.search(base)
    if re.fullmatch(_MONEY, content):
        return content if found or after[:1].isdigit() else None
    if found is None:
        return None
    amount, sign = found.groups()
    before = base[: found.start()]
    comes_first = _MONEY_FIRST.search(before) is not None
    cents = _CENTS.fullmatch(content)
    has_sign = comes_first or sign or (cents and (cents["sign"] or cents["between"]))
    if not has_sign and not _MONEY_LAST.match(after):
        return None
    if amount == "10" and (content in LARGE or (len(content) == 1 and not comes_first)):
        return None  # a power of ten
    ends = amount.endswith(".") and before.strip(" $€£¥") and _NEW_SENTENCE.match(after)
    if cents and not ends and not _HAS_CENTS.search(amount):
        has_point = sign or cents[1] or cents["between"] or amount.endswith((".", ","))
        point = "" if has_point else "," if "." in amount else "."
        return _apart("", point + content, after)
    return _note(base, content, after) if NOTE_MARK.fullmatch(content) else None


def _marked(mark: str, content: str, after: str) -> str:
    apart = " " if after[:1].isalnum() else ""
    return f"{mark}{grouped(content)}{apart}"


def _note(before: str, content: str, after: str) -> str:
    bracketed = _BRACKETED.fullmatch(content)
    inner = next(filter(None, bracketed.groups()), "") if bracketed else content.strip("()")
    return _apart(before, f"[{inner.strip()}]", after)


def _apart(before: str, content: str, after: str) -> str:
    left = " " if before and not before[-1].isspace() else ""
    right = " " if after[:1].isalnum() else ""
    return f"{left}{content}{right}"


def _is_prose(before: str, content: str) -> bool:
    """Return whether it is text in small print: several words, or one after an ordinary word."""
    if all(found.lower() in MEASURED for found in _ORDINARY.findall(content)):
        return False
    word = _WORD.search(before)
    behind_word = word is not None and len(word[0]) > 2 and word[0].lower() not in MEASURED
    return " " in content or behind_word


def _ends_a_word(before: str, content: str, after: str) -> bool:
    """Return whether raised letters end a word: an ordinal or an abbreviation."""
    if after[:1].isalpha():
        return False
    word = _WORD.search(before)
    if content in SUFFIXES and (before[-1:].isdigit() or _ROMAN.search(before)):
        # A single letter may be a power or a note mark. An ordinal is followed by its noun.
        return len(content) > 1 or content in "ªº" or re.match(r"\s+[^\W\d_]", after) is not None
    if word is None:
        return False
    alone = len(word[0]) == 1
    if alone:
        return content == "th" or (content == "o" and word[0] in "nN") or content in ABBREVIATED
    return content in ABBREVIATED


def _has_powers(base: str, content: str) -> bool:
    """Return whether a raised number after this text is a power."""
    word = _WORD.search(base)
    if word:
        if _IDEOGRAPHS.search(base):
            return False
        name = word[0].lower()
        if not content.isdigit() and content.isalpha():  # x^a is a power, a word's letter a note
            return len(name) < 3 and name not in SHORT_WORDS
        if name in MEASURED:
            return True
        return len(name) < 3 and name not in SHORT_WORDS and not _is_symbol(content)
    last = base[-1:]
    if _is_symbol(content):
        return False
    if last == ")":
        opened = base.rfind("(")
        inner = _ORDINARY.findall(base[opened:]) if opened >= 0 else []
        return all(found.lower() in MEASURED for found in inner)
    return last.isdigit() or last in tuple("]}|°′π∞")


def _is_symbol(content: str) -> bool:
    return not content[:1].isalnum()
