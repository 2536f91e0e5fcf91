"""How answers refuse, and how they speak of themselves as a language model, in several languages.

Phrases are normalized: without case, with one space between words. An ellipsis stands for words of
the same sentence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

REFUSALS = (
    "i cannot help with", "i can't help with", "i cannot assist", "i can't assist",
    "i'm sorry, but i can't", "i'm sorry, but i cannot", "i'm sorry, but i can not",
    "i am sorry, but i can't", "i am sorry, but i cannot", "i am sorry, but i can not",
    "sorry, i can't", "sorry, i cannot", "i'm unable to", "i am unable to", "i won't be able to",
    "i cannot fulfill", "i can't fulfill", "i cannot provide", "i can't provide", "i must decline",
    "tut mir leid, aber ich kann … nicht", "tut mir leid, ich kann … nicht",
    "ich kann dir dabei nicht helfen", "ich kann ihnen dabei nicht helfen",
    "dabei kann ich nicht helfen", "je suis désolé, mais je ne peux", "désolé, je ne peux",
    "je ne peux pas vous aider", "lo siento, pero no puedo", "lo siento, no puedo",
    "no puedo ayudarte con", "no puedo ayudarle con", "mi dispiace, ma non posso",
    "non posso aiutarti con", "desculpe, mas não posso", "sinto muito, mas não posso",
    "não posso ajudar com", "het spijt me, maar ik kan … niet", "sorry, ik kan … niet",
    "ik kan je daar niet mee helpen", "к сожалению, я не могу", "извините, но я не могу",
    "я не могу помочь", "抱歉,我不能", "抱歉,我无法", "对不起,我不能", "对不起,我无法",
)  # fmt: skip

_NAMES = (
    (("as an ai language model", "as an ai model", "as an ai assistant", "as a language model",
      "as a large language model"), ("i", "i'm", "i've", "my", "me")),
    (("als ki-sprachmodell", "als sprachmodell", "als ki-modell"),
     ("ich", "mir", "mich", "mein", "meine", "meiner", "meinen")),
    (("en tant que modèle de langage", "en tant qu'ia", "en tant qu'intelligence artificielle"),
     ("je", "j'ai", "j'essaie", "me", "mon", "ma", "mes")),
    (("como modelo de lenguaje", "como modelo de lengua", "como inteligencia artificial"),
     ("yo", "puedo", "tengo", "soy", "estoy", "he", "mi", "mis", "me")),
    (("come modello linguistico", "come modello di linguaggio"),
     ("io", "posso", "ho", "sono", "mio", "mia", "mi")),
    (("como modelo de linguagem", "como uma inteligência artificial"),
     ("eu", "posso", "tenho", "sou", "estou", "meu", "minha", "me")),
    (("als ai-taalmodel", "als taalmodel"), ("ik", "mij", "mijn")),
    (("как языковая модель", "как искусственный интеллект"), ("я", "мне", "меня", "мои")),
    (("作为一个ai", "作为一个人工智能", "作为ai语言模型", "作为人工智能语言模型"), ("我",)),
)  # fmt: skip
"""What a language model calls itself, and words for itself in the same sentence."""

OF_ITSELF = (
    "i am just an ai", "i'm just an ai", "i am an ai language model", "i'm an ai language model",
    "my knowledge cutoff", "my training data only", "my training data ends",
    "my training data goes", "my training data extends", "my training data stops",
    *(f"{name} … {own}" for names, words in _NAMES for name in names for own in words),
)  # fmt: skip

_BETWEEN = r"[^.!?。]{0,80}?"
_NO_SPACES = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff"
"""Letters of languages that set no spaces between words."""


class Phrases:
    """Phrases that begin and end with whole words."""

    def __init__(self, phrases: Iterable[str]) -> None:
        parts = [[part.strip() for part in phrase.split("…")] for phrase in phrases]
        self._first = [*dict.fromkeys(first for first, *_ in parts)]
        self._pattern = re.compile("|".join(_BETWEEN.join(map(_whole, each)) for each in parts))

    def find(self, text: str) -> str | None:
        """Return what a text has of them, None for most texts, which is quick to see."""
        if not any(first in text for first in self._first):
            return None
        match = self._pattern.search(text)
        return match[0] if match else None


def _whole(words: str) -> str:
    """Return a pattern for words of a phrase, wherever no letter stands beside them."""
    before, behind = (
        rf"(?<![^\W{_NO_SPACES}])" if _needs_edge(words[0]) else "",
        rf"(?![^\W{_NO_SPACES}])" if _needs_edge(words[-1]) else "",
    )
    return before + re.escape(words) + behind


def _needs_edge(letter: str) -> bool:
    return re.match(rf"[^\W{_NO_SPACES}]", letter) is not None
