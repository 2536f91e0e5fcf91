"""Drop rows in other languages than those that are allowed.

lingua's small models, which need 65 MB and half the time, decide where they are sure. They are
often wrong about texts of a few words, so all others are looked at by its large models, which need
900 MB once they are loaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from llmpipe.stages.curate.pool import Drop, Pool, lowered
from llmpipe.stages.curate.steps import Language

if TYPE_CHECKING:
    import lingua

_NOT_PROSE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|https?://\S+|\$\$.*?\$\$", re.DOTALL)
"""Code, addresses and formulas, which are in no language."""
_WORD = re.compile(r"[^\W\d_]+")
_NO_SPACES = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Letters of languages that set no spaces between words. Each counts as half a word."""
NOT_READ = frozenset({"system", "tool"})
"""The roles whose turns are not looked at."""
LONGEST = 400
"""Letters of a turn that are looked at. More say no more, and take longer."""
SURE = 0.95
"""The confidence from which the small models decide."""


class Languages:
    """Tells how likely a text is in one of the allowed languages."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = {language for language in _every() if _code(language) in allowed}

    def share(self, text: str) -> tuple[float, str]:
        """Return the confidence for the allowed languages, and the code of the likeliest.

        The confidence is the share that they have together beside the likeliest other language. Of
        text without a language, such as numbers, it is 1.
        """
        share, likeliest = self._compared(text, _detector(small=True))
        if share >= SURE:
            return share, likeliest
        return self._compared(text, _detector(small=False))

    def _compared(self, text: str, detector: lingua.LanguageDetector) -> tuple[float, str]:
        values = detector.compute_language_confidence_values(text)
        ours = sum(each.value for each in values if each.language in self._allowed)
        other = max((v.value for v in values if v.language not in self._allowed), default=0.0)
        share = ours / (ours + other) if ours + other else 1.0
        return share, _code(values[0].language)


def run(step: Language, pool: Pool) -> Mapping[str, Any]:
    """Drop rows with a turn in a language that is not allowed; return the metrics."""
    languages, drops = Languages(step.allowed), dict[int, Drop]()
    found: Counter[str] = Counter()
    short = 0
    for position, said in pool.each_said("telling languages"):
        turns = [prose(turn.text) for turn in said if turn.is_turn and turn.role not in NOT_READ]
        long = [text for text in turns if _words(text) >= step.fewest_words]
        short += not long
        told = [languages.share(text[:LONGEST]) for text in long]
        found.update(likeliest for _, likeliest in told)
        share, likeliest = min(told, default=(1.0, ""))
        if share < step.least:
            reason = f"a turn is {likeliest}: {share:.0%} for what is allowed"
            keep = f"allow {likeliest}, or {lowered('least to', share)}"
            drops[position] = Drop("language", reason, keep, share)
    pool.drop(drops)
    return {"turns_by_language": dict(sorted(found.items())), "too_short_to_tell": short}


def prose(text: str) -> str:
    """Return a text without what is in no language: code, addresses and formulas."""
    return _NOT_PROSE.sub(" ", text)


def _words(text: str) -> int:
    return len(_WORD.findall(text)) + len(_NO_SPACES.findall(text)) // 2


def _every() -> Iterable[lingua.Language]:
    from lingua import Language as Known

    return Known.all()


def _code(language: lingua.Language) -> str:
    return str(language.iso_code_639_1.name).lower()


@cache
def _detector(*, small: bool) -> lingua.LanguageDetector:
    from lingua import LanguageDetectorBuilder

    builder = LanguageDetectorBuilder.from_all_languages()
    return (builder.with_low_accuracy_mode() if small else builder).build()
