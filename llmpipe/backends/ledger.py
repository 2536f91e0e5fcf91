"""Count what requests cost, and keep a budget while requests are in flight.

Before a request is sent, its worst case is reserved: a bound on its prompt's tokens and all tokens
that it allows for the reply. A reply replaces the reservation by what the endpoint reports. So the
sum of what is spent and what is reserved never exceeds the budget, however many requests are in
flight. Prices come from the spec; a price that is not there is never guessed.

Replies from the journal count like new ones: the budget is that of the rows, not of one run.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmpipe.backends.spending import NOTHING, Budget, BudgetReachedError, Price, Usage, dollars

TOKENS_OF_A_MESSAGE = 64
"""More than any chat template adds to a message."""
TOKENS_OF_A_PROMPT = 256
"""More than chat templates add once, such as a default system message."""
TOKENS_OF_A_SCHEMA = 1024
"""More than an endpoint adds to explain a schema or a tool to the model."""


def prompt_bound(messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any] | None) -> int:
    """Return more tokens than a prompt has with any tokenizer that works on bytes.

    A token is at least one byte of the text.
    """
    texts = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
    asked = 0 if schema is None else len(json.dumps(schema)) + TOKENS_OF_A_SCHEMA
    return texts + TOKENS_OF_A_MESSAGE * len(messages) + TOKENS_OF_A_PROMPT + asked


@dataclass(frozen=True, slots=True)
class _Amount:
    requests: int = 0
    tokens: int = 0
    money: float = 0.0

    def __add__(self, other: _Amount) -> _Amount:
        return _Amount(
            self.requests + other.requests, self.tokens + other.tokens, self.money + other.money
        )


@dataclass(slots=True)
class Ledger:
    """The spending of one stage. `reserve` and what follows it are called in one event loop.

    Tokens that an endpoint does not report count with their worst case, as do requests without an
    answer, which may have been billed all the same.
    """

    price: Price | None = None
    budget: Budget | None = None
    usage: Usage = NOTHING
    """The reported tokens of all replies, also of those from the journal."""
    new: Usage = NOTHING
    """The reported tokens of this run's replies."""
    unreported: int = 0
    """Replies without tokens."""
    lost: int = 0
    """Requests without an answer."""
    scale: float = 1.0
    """How much more than the bound an endpoint has reported: later bounds are raised by it."""
    stopped: str = ""
    """Which part of the budget is reached, for messages."""
    _spent: _Amount = _Amount()
    _held: dict[int, _Amount] = field(default_factory=dict)
    _count: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def reserve(self, worst: Usage) -> int:
        """Reserve the worst case of a request, and return the reservation's number.

        If only requests in flight stand in the way, wait for them.

        Raises:
            BudgetReachedError: It does not fit into the budget.
        """
        need = self._amount(worst, bound=True)
        while not self.stopped and (limit := self._too_much(need)):
            if not self._held:
                self.stopped = limit
                break
            self._changed.clear()
            await self._changed.wait()
        if self.stopped:
            self._changed.set()
            raise self.error()
        self._count += 1
        self._held[self._count] = need
        return self._count

    def reserve_now(self, worst: Usage) -> int | None:
        """Reserve a worst case, or return None if it does not fit beside what is reserved."""
        need = self._amount(worst, bound=True)
        if self._too_much(need):
            return None
        self._count += 1
        self._held[self._count] = need
        return self._count

    def refused(self, worst: Usage) -> BudgetReachedError:
        """Stop the work, and return the error, for a request that does not fit."""
        self.stopped = self._too_much(self._amount(worst, bound=True))
        return self.error()

    def settle(self, number: int, worst: Usage, usage: Usage | None) -> None:
        """Replace a reservation by what a reply cost; None if the endpoint does not say."""
        self._release(number)
        self.recall(worst, usage)
        if usage is not None:
            self.new += usage
            for reported, allowed in ((usage.input, worst.input), (usage.output, worst.output)):
                self.scale = max(self.scale, reported / max(1, allowed))

    def cancel(self, number: int) -> None:
        """Drop the reservation of a request that was refused: it costs nothing."""
        self._release(number)

    def lose(self, number: int | None, worst: Usage) -> None:
        """Count a request without an answer with its worst case."""
        if number is not None:
            self._release(number)
        self.lost += 1
        self._spent += self._amount(worst, bound=True)

    def recall(self, worst: Usage, usage: Usage | None) -> None:
        """Count a reply, such as one from the journal."""
        if usage is None:
            self.unreported += 1
        else:
            self.usage += usage
        self._spent += self._amount(usage or worst, bound=usage is None)

    def error(self) -> BudgetReachedError:
        """Return the error for a budget that is reached."""
        return BudgetReachedError(
            f"the budget of {self.stopped} is reached: the next request could exceed it "
            f"(spent: {self.told()})",
            hint="the replies so far are journaled; raise `budget` and run again to go on",
        )

    def told(self) -> str:
        """Return what was spent, for messages."""
        parts = [f"{self._spent.requests:,} requests", f"{self._spent.tokens:,} tokens"]
        if self.price is not None:
            parts.append(f"{dollars(self._spent.money)}")
        return ", ".join(parts)

    def metrics(self) -> dict[str, Any]:
        """Return tokens and cost of the rows, and what of the cost this run has added."""
        found: dict[str, Any] = {
            "tokens": {
                "input": self.usage.input,
                "cached_input": self.usage.cached,
                "output": self.usage.output,
            }
        }
        if self.unreported:
            found["replies_without_usage"] = self.unreported
        if self.lost:
            found["requests_without_answer"] = self.lost
        if self.price is not None:
            # what no endpoint has counted is in no sum, but may be billed
            known = not (self.unreported or self.lost)
            found["usd" if known else "usd_at_most"] = round(self._spent.money, 8)
            if known:
                found["usd_new"] = round(self.price.of(self.new), 8)
        return found

    def _amount(self, usage: Usage, *, bound: bool) -> _Amount:
        tokens = usage.input + usage.output
        if not bound:
            return _Amount(1, tokens, self.price.of(usage) if self.price else 0.0)
        money = self.price.worst(usage) if self.price else 0.0
        return _Amount(1, int(tokens * self.scale) + 1, money * self.scale)

    def _too_much(self, need: _Amount) -> str:
        """Return the part of the budget into which a request does not fit, or an empty text."""
        total = self._spent + need
        for held in self._held.values():
            total += held
        return next(self._exceeded(total), "")

    def _exceeded(self, total: _Amount) -> Iterator[str]:
        budget = self.budget or Budget()
        if budget.money is not None and total.money > budget.money:
            yield dollars(budget.money)
        if budget.tokens is not None and total.tokens > budget.tokens:
            yield f"{budget.tokens:,} tokens"
        if budget.requests is not None and total.requests > budget.requests:
            yield f"{budget.requests:,} requests"

    def _release(self, number: int) -> None:
        del self._held[number]
        self._changed.set()
