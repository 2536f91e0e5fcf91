"""Show a few rows with the prompts and rejects on the way to them, before a run pays for many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmpipe.formats.records import to_json
from llmpipe.stages.generate.loop import GenerationState
from llmpipe.stages.generate.pace import Pace
from llmpipe.stages.generate.protocol import Reject

if TYPE_CHECKING:
    from llmpipe.backends.openai.chat import ChatClient, ChatReply, ChatRequest

ALIKE = 2
"""Prompts of one step, and rejects for one reason, that are shown in full."""


def preview_patience(rows: int) -> int:
    """Return the number of consecutive rejects after which a preview of so many rows ends."""
    return max(10, 4 * rows)


@dataclass(slots=True)
class Recorder:
    """A client that keeps the first prompts of each step, and counts the others."""

    client: ChatClient
    pace: Pace
    shown: list[tuple[str, ChatRequest, ChatReply]] = field(default_factory=list)
    steps: Counter[str] = field(default_factory=Counter)

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        """Return a reply for every request, in order."""
        replies = self.client.ask(requests)
        for request, reply in zip(requests, replies, strict=True):
            if self.steps[self.pace.note] < ALIKE:
                self.shown.append((self.pace.note, request, reply))
            self.steps[self.pace.note] += 1
        return replies


def preview_texts(
    state: GenerationState, rows: Sequence[Mapping[str, Any]], asked: Recorder, ended: str
) -> list[str]:
    """Return the prompts, the rows and the rejects as texts, and a summary as the last one.

    Args:
        state: what came of it.
        rows: the rows as they would be written.
        asked: what was asked.
        ended: why there are fewer rows than wanted, or an empty text.
    """
    texts = [_exchange(*each) for each in asked.shown]
    texts += [f"row {number}\n{to_json(row)}" for number, row in enumerate(rows, 1)]
    texts += _rejects(state.rejects)
    journaled = asked.client.journal.reused
    paid = f"{asked.client.sent} replies, and {journaled} from the journal"
    steps = ", ".join(f"{step} {count}" for step, count in asked.steps.items())
    told = [f"{len(state.rows)} of {state.wanted} rows, {state.told_reasons()}"]
    told += [f"{paid} (prompts: {steps}); a run does not pay for them again"]
    told += [f"ended early: {ended}"] if ended else []
    return [*texts, "summary\n" + "\n".join(told)]


def _exchange(step: str, request: ChatRequest, reply: ChatReply) -> str:
    said = [f"[{turn['role']}] {turn['content']}" for turn in request.messages]
    if reply.problem:
        answer = f"[no reply: {reply.problem}] {reply.detail}"
    else:
        answer = f"[reply{', truncated' if reply.truncated else ''}] {reply.text}"
    return "\n".join([f"prompt ({step})", *said, answer])


def _rejects(rejects: Sequence[Reject]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for reject in rejects:
        seen[reject.reason] += 1
        if seen[reject.reason] <= ALIKE:
            detail = f" ({reject.detail})" if reject.detail else ""
            where = f" at {reject.operator}" if reject.operator else ""
            yield f"reject{where}: {reject.reason}{detail}\n{reject.text}"
