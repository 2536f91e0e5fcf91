"""Ask the teacher on behalf of a method, and keep the person who waits informed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from llmpipe.backends.spending import BudgetReachedError
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.replies import Messages, checked

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatReply, ChatRequest

BUDGET = "budget"
"""The problem of a reply that was not asked for, because the budget is reached."""
VERDICT_TOKENS = 32
"""Tokens that a yes or no takes; it is one word in JSON."""


class Client(Protocol):
    """What sends requests; see `llmpipe.backends.openai.chat.ChatClient`."""

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Return a reply for every request, in order."""


class Teacher:
    """The teacher as methods see it: requests with the stage's decoding, replies with progress."""

    def __init__(self, client: Client, pace: Pace, *, temperature: float, max_tokens: int) -> None:
        self._client = client
        self._pace = pace
        self._temperature = temperature
        self._max_tokens = max_tokens
        self.budget_reached: BudgetReachedError | None = None
        """The error of the budget, once some requests were not sent because of it."""

    def request(
        self,
        messages: Messages,
        *,
        seed: int,
        draw: int = 0,
        schema: Mapping[str, Any] | None = None,
        shared: int = 0,
        greedy: bool = False,
    ) -> ChatRequest:
        """Return a request.

        Args:
            messages: the conversation; the teacher writes the next turn.
            seed: seeds the sampling.
            draw: distinguishes repeated requests for the same thing.
            schema: the JSON Schema that constrains the reply.
            shared: how many of the first messages other requests begin with as well.
            greedy: whether to take the likeliest tokens instead of sampling.
        """
        from llmpipe.backends.openai.chat import ChatRequest

        return ChatRequest(
            messages=messages,
            temperature=0.0 if greedy else self._temperature,
            max_tokens=self._max_tokens,
            seed=seed,
            schema=schema,
            draw=draw,
            shared=shared,
        )

    def ask(self, note: str, requests: Sequence[ChatRequest], after: int) -> list[ChatReply]:
        """Return a reply for each request, in order.

        Args:
            note: what is being done, for the progress line.
            requests: what is asked now.
            after: how many replies this batch may need afterwards, at most.

        Raises:
            BudgetReachedError: The budget allows none of them. Of what it cuts in two, the rest has
                the problem ``budget``.
        """
        self._pace.step(note)
        return self._usable(self._ask(requests, after))

    def ask_verdicts(
        self, note: str, requests: Sequence[ChatRequest], after: int
    ) -> list[ChatReply]:
        """Ask for short replies; a teacher that reasons first is asked again with more tokens."""
        from dataclasses import replace

        self._pace.step(note)
        short = [replace(request, max_tokens=VERDICT_TOKENS) for request in requests]
        replies = self._ask(short, after)
        thinking = [index for index, reply in enumerate(replies) if _cut_while_thinking(reply)]
        if thinking:
            again = self._ask([requests[index] for index in thinking], after)
            for index, reply in zip(thinking, again, strict=True):
                replies[index] = reply
        return self._usable(replies)

    def _ask(self, requests: Sequence[ChatRequest], after: int) -> list[ChatReply]:
        self._pace.asked(len(requests), after)
        try:
            replies = self._client.ask(requests)
        except BudgetReachedError as error:
            self.budget_reached = error
            if not error.replies:
                raise
            replies = list(error.replies)
        return [checked(*pair) for pair in zip(requests, replies, strict=True)]

    def _usable(self, replies: list[ChatReply]) -> list[ChatReply]:
        """Return the replies of a step; if the budget allowed none, it ends the work."""
        if self.budget_reached and replies and all(reply.problem == BUDGET for reply in replies):
            raise self.budget_reached
        return replies


def _cut_while_thinking(reply: ChatReply) -> bool:
    return reply.truncated and bool(reply.reasoning) and not reply.text
