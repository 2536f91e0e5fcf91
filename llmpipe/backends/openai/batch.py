"""Ask many requests as batches, which providers answer within a day at a lower price.

A batch is submitted once, whatever happens. Before it is sent, its name and the requests in it are
journaled; its id follows. A run that was killed in between finds the batch at the provider by its
name. The next run waits for the batches that are under way, and submits only what is in none. The
replies are journaled like all others.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, Protocol, TypedDict

from llmpipe.backends.openai.chat import ChatClient
from llmpipe.backends.openai.chat_requests import ChatReply, ChatRequest, Said
from llmpipe.backends.openai.client import AnswerT, Failure, MalformedReplyError
from llmpipe.backends.openai.journal import request_key
from llmpipe.errors import StageError

POLL = (2.0, 60.0)
"""Seconds between the first two looks at a batch, and the most between two."""
LARGEST = 10_000
"""Requests of a batch; providers take up to 50,000 or 100,000, and limit the bytes."""


class Place(TypedDict):
    """Where a request is: in which batch, under which number. No batch if it must be sent."""

    batch: str
    number: int


class Sent(TypedDict):
    """A batch: when it was sent, with how many requests, and its id if it is known."""

    since: float
    count: int
    id: NotRequired[str]


class BatchRefusedError(StageError):
    """The provider refuses a batch as a whole; it will never have results."""


class BatchApi(Protocol):
    """A provider's batches."""

    async def submit(self, api: Any, name: str, bodies: Mapping[str, dict[str, Any]]) -> str:
        """Send requests by their ids; return the id of the batch."""

    async def find(self, api: Any, name: str, sent: Sent) -> str | None:
        """Return the id of the batch with this name, or None if the provider has none."""

    async def ended(self, api: Any, batch: str) -> bool:
        """Return whether a batch has ended.

        Raises:
            BatchRefusedError: The provider refuses the batch as a whole.
        """

    def results(self, api: Any, batch: str) -> AsyncIterator[tuple[str, Any]]:
        """Yield the id of each request, with the SDK's reply or a `Failure`."""


GONE = (
    "if the provider no longer has it (they keep batches for about a month), `llmpipe run SPEC "
    "--resample STAGE` asks for all replies of the stage again, which is paid for again"
)
"""What to do about a batch whose results can no longer be had."""


@dataclass(slots=True)
class Batches:
    """The batches of a client."""

    client: ChatClient
    provider: BatchApi

    def ask(self, requests: Sequence[ChatRequest]) -> list[ChatReply | Failure]:
        """Return the outcome of each request, in order. See `ChatClient.ask` for the errors."""
        found: dict[int, ChatReply | Failure] = {}
        keys = [self.client.key(request) for request in requests]
        while len(found) < len(requests):
            waiting = [index for index in range(len(requests)) if index not in found]
            under_way = self._under_way({index: keys[index] for index in waiting})
            new = [index for index in waiting if not any(index in b for b in under_way.values())]
            reserved = self._reserved(requests, waiting, new)
            if not reserved and not under_way:
                error = self.client.ledger.refused(self.client.worst(requests[waiting[0]]))
                found |= {index: Failure("budget", error.message) for index in waiting}
                break
            chosen = [index for index in new if index in reserved][:LARGEST]
            if chosen:
                name = self._submit({index: requests[index] for index in chosen}, keys)
                under_way[name] = {index: number for number, index in enumerate(chosen)}
            for name, members in under_way.items():
                self._collect(name, members, requests, keys, reserved, found)
                for index in members:  # asked once: it may never get one
                    found.setdefault(index, Failure("failed", "no result in its batch"))
            for number in reserved.values():  # of those that were not sent this time
                self.client.ledger.cancel(number)
        return [found[index] for index in range(len(requests))]

    def _under_way(self, keys: Mapping[int, str]) -> dict[str, dict[int, int]]:
        """Return the batches that hold requests, with the numbers of the requests in them."""
        found: dict[str, dict[int, int]] = {}
        for index, key in keys.items():
            place: Place | None = self._journaled({"place": key}, Place)
            if place and place["batch"]:
                found.setdefault(place["batch"], {})[index] = place["number"]
        return {name: members for name, members in found.items() if self._exists(name)}

    def _exists(self, name: str) -> bool:
        """Return whether the provider has a batch; its id is journaled if it was not."""
        sent: Sent | None = self._journaled({"batch": name}, Sent)
        if sent is None:
            return False
        if "id" not in sent:
            known = sent
            looked = self.client.call([name], lambda api, n: self.provider.find(api, n, known))
            found = self._sure(looked[0])  # who cannot be asked may have it: never submit it again
            if found is None:
                return False
            self._put({"batch": name}, {**sent, "id": found})
        return True

    def _reserved(
        self, requests: Sequence[ChatRequest], waiting: Sequence[int], new: Sequence[int]
    ) -> dict[int, int]:
        """Reserve the worst cases, first of what is under way; stop at the first that is too much.

        What is under way is paid for already: it is reserved as far as the budget goes.
        """
        numbers: dict[int, int] = {}
        last = set(new)
        for index in sorted(waiting, key=lambda index: index in last):
            number = self.client.ledger.reserve_now(self.client.worst(requests[index]))
            if number is None:
                break
            numbers[index] = number
        return numbers

    def _submit(self, requests: Mapping[int, ChatRequest], keys: Sequence[str]) -> str:
        """Submit a batch, which is journaled first; return its name."""
        name = secrets.token_hex(8)
        client = self.client
        for number, index in enumerate(requests):
            place: Place = {"batch": name, "number": number}
            client.journal.put(request_key({"place": keys[index]}), place, synced=False)
        sent: Sent = {"since": time.time(), "count": len(requests)}
        self._put({"batch": name}, sent)
        bodies = {
            custom_id(name, number): client.body(request)
            for number, request in enumerate(requests.values())
        }
        attempts = 0

        async def send(api: Any, bodies: Mapping[str, dict[str, Any]]) -> str:
            nonlocal attempts
            attempts += 1
            if attempts > 1 and (known := await self.provider.find(api, name, sent)):
                return known  # the answer was lost, not the batch
            return await self.provider.submit(api, name, bodies)

        (outcome,) = client.call([bodies], send)
        if isinstance(outcome, Failure):
            raise StageError(
                f"the teacher at {client.base_url} takes no batch: {outcome.detail}",
                hint="does it have batches? else leave out `mode: batch`",
            )
        self._put({"batch": name}, {**sent, "id": outcome})
        return name

    def _collect(
        self,
        name: str,
        members: Mapping[int, int],
        requests: Sequence[ChatRequest],
        keys: Sequence[str],
        reserved: dict[int, int],
        found: dict[int, ChatReply | Failure],
    ) -> None:
        """Wait for a batch, and journal its replies."""
        sent: Sent = self._journaled({"batch": name}, Sent)
        by_id = {custom_id(name, number): index for index, number in members.items()}
        for known, result in self._results(sent["id"], [keys[index] for index in members]):
            index = by_id.get(known)
            if index is None:
                continue
            said = result if isinstance(result, Failure) else self._read(result)
            worst, number = self.client.worst(requests[index]), reserved.pop(index, None)
            if isinstance(said, Failure):
                if number is not None:
                    self.client.ledger.cancel(number)
                found[index] = said
                continue
            self.client.journal.put(keys[index], said)
            self.client.count(keys[index], number, worst, said)  # None: beyond the budget
            found[index] = self.client.received(said)
        self._clear(keys[index] for index in members)

    def _clear(self, keys: Iterable[str]) -> None:
        """Journal that requests are in no batch: without a reply, they are sent if asked again."""
        place: Place = {"batch": "", "number": 0}
        for key in keys:
            self.client.journal.put(request_key({"place": key}), place, synced=False)

    def _results(self, batch: str, keys: Sequence[str]) -> list[tuple[str, Any]]:
        """Return the results of a batch as soon as it has ended.

        Raises:
            StageError: It cannot be read, or the provider refuses it: its requests are free again.
        """
        pause, longest = POLL
        try:
            while not self._sure(self.client.call([batch], self.provider.ended)[0]):
                time.sleep(pause)
                pause = min(longest, pause * 1.5)
        except BatchRefusedError:
            self._clear(keys)
            raise

        async def read(api: Any, batch: str) -> list[tuple[str, Any]]:
            return [result async for result in self.provider.results(api, batch)]

        return self._sure(self.client.call([batch], read)[0])

    def _sure(self, outcome: AnswerT | Failure) -> AnswerT:
        if isinstance(outcome, Failure):
            raise StageError(
                f"the batch at {self.client.base_url} cannot be read: {outcome.detail}",
                hint="it is kept in the journal; run again to go on waiting for it\n" + GONE,
            )
        return outcome

    def _read(self, completion: Any) -> Said | Failure:
        try:
            return self.client.format.read(completion)
        except MalformedReplyError as error:
            return Failure("malformed reply", str(error)[:300])

    def _journaled(self, of: Mapping[str, str], shape: Any) -> Any:
        return self.client.journal.get(request_key(of), shape, counted=False)

    def _put(self, of: Mapping[str, str], value: Mapping[str, Any]) -> None:
        self.client.journal.put(request_key(of), value)


def custom_id(name: str, number: int) -> str:
    """Return the id of a request in a batch."""
    return f"{name}-{number}"
