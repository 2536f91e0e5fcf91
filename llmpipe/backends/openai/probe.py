"""Find out with a few tiny requests what an endpoint does with the fields of a request.

"OpenAI-compatible" endpoints accept fields without obeying them, or refuse fields that OpenAI
knows. The answers are kept in the journal, like all replies: an endpoint is probed once. A reply is
judged by what it shows: more prompt tokens with a system message, equal texts with an equal seed,
an object that a schema asks for. What endpoints do not obey by fields is then asked for in words
(`with_words`), or left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired, TypedDict

from llmpipe.backends.ledger import prompt_bound
from llmpipe.backends.openai.chat import ChatClient
from llmpipe.backends.openai.chat_requests import Abilities, ChatRequest, Said, spent
from llmpipe.backends.openai.client import Failure
from llmpipe.backends.openai.journal import request_key
from llmpipe.backends.spending import Usage
from llmpipe.errors import StageError

OPENING = "llmpipe checks this endpoint."
"""How the text of every probe begins."""
COUNT = f"{OPENING} Write the numbers from one to sixty, in words and in a random order."
HELLO = f"{OPENING} Say hello in one word."
SYSTEM = (
    "You are asked by a program that checks what this endpoint does with a system message. It "
    "looks at the number of tokens of the prompt, which this message must raise. Answer the user "
    "as you would without it, and do not talk about it."
)
SYSTEM_TOKENS = 15
"""Fewer tokens than the system message has."""
SHORT, LONG = 16, 128
"""Tokens that a reply may take: one that is cut, and one that holds a small object."""
SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {"verdict": {"type": "boolean"}},
    "required": ["verdict"],
    "additionalProperties": False,
}
TEMPERATURE = 0.7
"""No model's default: one that takes only its default refuses it."""
EXTRAS: Mapping[str, Mapping[str, Any]] = {"logprobs": {"logprobs": True}, "many": {"n": 2}}
"""Abilities that only a field of its own shows, which requests of a stage do not have."""


class Probed(TypedDict):
    """The answer to a probe, as the journal keeps it."""

    said: NotRequired[Said]
    refused: NotRequired[str]
    choices: NotRequired[int]
    logprobs: NotRequired[bool]


def probe_endpoint(
    client: ChatClient, requires: frozenset[str], warn: Callable[[str], None]
) -> None:
    """Let a client ask in the way that its endpoint obeys, and warn of what it does not obey.

    Raises:
        StageError: It refuses every request, or does not obey what is required.
    """
    found = _Probe(client).abilities()
    client.format.abilities = found
    where = f"the teacher at {client.base_url}"
    missing = [name for name in sorted(requires) if not found.does(name)]
    if missing:
        raise StageError(
            f"{where} does not obey what this stage needs: {', '.join(missing)} "
            f"({', '.join(f'{name}: {getattr(found, name)}' for name in missing)})",
            hint="use another endpoint, or a method or budget that does not need it; "
            "nothing but the probe was paid for; if the endpoint has changed since it was probed, "
            "`--resample` probes it again",
        )
    for message in _told(found, client.format.sdk.package == "anthropic"):
        warn(f"{where} {message}")


def _told(found: Abilities, without_seed: bool) -> Iterator[str]:
    """Yield what a user should know, as the end of a sentence about the endpoint."""
    if not found.does("schema"):
        yield (
            f"{_verb(found.schema)} `response_format`: replies are asked for as JSON in words; "
            "malformed ones are rejected"
        )
    if not found.does("system"):
        yield f"{_verb(found.system)} system messages: they begin the user's message instead"
    if not found.does("seed") and not without_seed:
        yield f"{_verb(found.seed)} `seed`: only the journal gives the same replies again"
    if not found.does("temperature"):
        yield "refuses `temperature`: it is not sent"
    if not found.does("max_tokens"):
        yield "ignores `max_tokens`: longer replies are paid for, and rejected"
    if not found.does("usage"):
        yield "does not report tokens: each reply counts with the most that it may have taken"


def _verb(state: str) -> str:
    return "refuses" if state == "refused" else "ignores"


@dataclass(slots=True)
class _Probe:
    client: ChatClient
    _refused: dict[str, Probed] = field(default_factory=dict)
    """Refusals by their journal keys, until a later request is answered: an endpoint also refuses
    because an account is empty, which passes."""

    def abilities(self) -> Abilities:
        """Return what the endpoint does, from the journal or by asking it."""
        base, found = self._base()
        found = replace(found, **_limits(base))
        wanted = self.client.format.abilities
        if wanted.seed == "refused":  # the API has no such fields
            system = self._ask(found, COUNT, system=SYSTEM)
            found = replace(found, system=_system(base, system))
        else:
            found = self._by_fields(base, found)
        schema = self._ask(replace(found, schema="yes"), HELLO, schema=SCHEMA, tokens=LONG)
        return replace(found, schema=_schema(schema))

    def _base(self) -> tuple[Probed, Abilities]:
        """Ask the simplest request, with other fields until the endpoint takes it."""
        known = self.client.format.abilities
        limits = ["max_tokens", "max_completion_tokens"] if known.seed != "refused" else [""]
        refusals = []
        for temperature in ("yes", "refused"):
            for limit in limits:
                tried = replace(known, seed="refused", temperature=temperature,
                                limit_field=limit or known.limit_field)  # fmt: skip
                answer = self._ask(tried, COUNT)
                if "said" in answer:
                    return answer, tried
                refusals.append(answer["refused"])
        raise StageError(
            f"the teacher at {self.client.base_url} refuses the simplest request: {refusals[0]}",
            hint="is it an endpoint for chats? an OpenAI-compatible base_url usually ends in /v1",
        )

    def _by_fields(self, base: Probed, found: Abilities) -> Abilities:
        """Test system messages, seeds, logprobs and n: together, or each alone if refused."""
        seeded = replace(found, seed="yes")
        extras = {**EXTRAS["logprobs"], **EXTRAS["many"]}
        all_at_once = self._ask(seeded, COUNT, system=SYSTEM, extras=extras)
        if "said" in all_at_once:
            again = self._ask(seeded, COUNT, system=SYSTEM, extras=extras, number=1)
            return replace(
                found,
                system=_system(base, all_at_once),
                seed=_seed(all_at_once, again),
                logprobs=_shown("logprobs", all_at_once),
                many=_shown("many", all_at_once),
            )
        first, again = (self._ask(seeded, COUNT, number=number) for number in (0, 1))
        alone = {name: self._ask(found, COUNT, extras=extra) for name, extra in EXTRAS.items()}
        return replace(
            found,
            system=_system(base, self._ask(found, COUNT, system=SYSTEM)),
            seed=_seed(first, again),
            logprobs=_shown("logprobs", alone["logprobs"]),
            many=_shown("many", alone["many"]),
        )

    def _ask(
        self,
        abilities: Abilities,
        text: str,
        *,
        system: str = "",
        schema: Mapping[str, Any] | None = None,
        tokens: int = SHORT,
        extras: Mapping[str, Any] | None = None,
        number: int = 0,
    ) -> Probed:
        """Return the answer to a probe: from the journal, or the endpoint's."""
        client = self.client
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": text})
        request = ChatRequest(messages, TEMPERATURE, tokens, seed=7, schema=schema)
        asked = replace(client.format, abilities=abilities)  # type: ignore[type-var]
        body = {"model": client.model, **asked.body(request), **(extras or {})}
        key = request_key({"probe": body, "teacher": client.identity, "number": number})
        choices = int((extras or {}).get("n", 1))
        worst = Usage(prompt_bound(messages, schema), choices * tokens)
        known: Probed | None = client.journal.get(key, Probed, counted=False)
        client.recall(key, worst, (known or {}).get("said"))
        if known is not None:
            return known

        async def send(api: Any, body: Mapping[str, Any]) -> Probed:
            completion, said = await client.charge(api, body, worst, key)
            shown = getattr(completion, "choices", None) or [None]
            return Probed(said=said, choices=len(shown),
                          logprobs=bool(getattr(shown[0], "logprobs", None)))  # fmt: skip

        (outcome,) = client.call([body], send)
        return self._kept(key, outcome)

    def _kept(self, key: str, outcome: Probed | Failure) -> Probed:
        """Return an answer, and journal it if it will be the same the next time.

        Raises:
            BudgetReachedError: The budget does not allow the request.
        """
        if self.client.ledger.stopped:
            raise self.client.ledger.error()
        if isinstance(outcome, Failure):
            refused = Probed(refused=f"{outcome.problem}: {outcome.detail}")
            if outcome.problem in ("refused", "too long"):
                self._refused[key] = refused
            return refused
        for each, answer in {**self._refused, key: outcome}.items():
            self.client.journal.put(each, answer)
        self._refused.clear()
        return outcome


def _limits(base: Probed) -> dict[str, str]:
    """Return whether the endpoint reports tokens and obeys the limit of a reply."""
    usage = spent(base["said"])
    if usage is None:
        obeys = len(base["said"]["text"].encode()) <= 16 * SHORT
    else:
        obeys = usage.output <= SHORT
    return {"usage": "yes" if usage else "ignored", "max_tokens": "yes" if obeys else "ignored"}


def _system(base: Probed, asked: Probed) -> str:
    if "said" not in asked:
        return "refused"
    without, with_it = spent(base["said"]), spent(asked["said"])
    if without is None or with_it is None:
        return "unknown"
    return "yes" if with_it.input - without.input >= SYSTEM_TOKENS else "ignored"


def _seed(first: Probed, again: Probed) -> str:
    if "said" not in first or "said" not in again:
        return "refused"
    texts = [(each["said"]["text"], each["said"].get("reasoning")) for each in (first, again)]
    return "yes" if texts[0] == texts[1] else "ignored"


def _shown(name: str, asked: Probed) -> str:
    if "said" not in asked:
        return "refused"
    shown = asked.get("logprobs") if name == "logprobs" else asked.get("choices") == 2
    return "yes" if shown else "ignored"


def _schema(asked: Probed) -> str:
    if "said" not in asked:
        return "refused"
    try:
        value = json.loads(asked["said"]["text"])
    except ValueError:
        return "unknown" if asked["said"]["truncated"] else "ignored"
    return "yes" if isinstance(value, dict) and value.keys() == {"verdict"} else "ignored"
