"""Prices and budgets of requests, as a spec gives them, and the tokens that they count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from llmpipe.errors import StageError

MILLION = 1_000_000


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an endpoint charges, in US dollars per million tokens."""

    input: Annotated[float, msgspec.Meta(ge=0)]
    """Of prompts."""
    output: Annotated[float, msgspec.Meta(ge=0)]
    """Of replies, including reasoning."""
    cached_input: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Of prompt tokens that the endpoint has cached; the price of `input` by default."""

    def of(self, usage: Usage) -> float:
        """Return the price of tokens, in US dollars."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input - usage.cached
        return (fresh * self.input + usage.cached * cached + usage.output * self.output) / MILLION

    def worst(self, usage: Usage) -> float:
        """Return the price of tokens if the dearest of the prices for prompts holds for them."""
        dearest = max(self.input, self.cached_input or 0.0)
        return (usage.input * dearest + usage.output * self.output) / MILLION


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the rows may cost in all runs together. It is never exceeded, and not part of them,
    except with `allow_fewer`, where it decides how many rows there are."""

    requests: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Requests that the teacher answers, or may have answered; refused ones do not count."""
    tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Tokens of prompts and replies together."""
    money: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """US dollars. Needs `price` of the teacher."""


class BudgetReachedError(StageError):
    """The next request could exceed the budget. All replies so far are journaled."""

    replies: Sequence[Any] = ()
    """The replies to the requests of the call, where some were answered; those that were not sent
    have the problem ``budget``."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of a request. ``cached`` is the part of ``input`` that the endpoint had cached."""

    input: int
    output: int
    cached: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input + other.input, self.output + other.output, self.cached + other.cached
        )


NOTHING = Usage(0, 0)
"""The tokens of no request."""


def dollars(amount: float) -> str:
    """Return an amount of US dollars as text, with more digits if it is small."""
    return f"{amount:,.2f} USD" if amount >= 1 else f"{amount:.4g} USD"
