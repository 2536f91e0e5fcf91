"""One turn of a conversation: its speaker, its text, and what else training reads.

A turn is written with ``role`` and ``content``, or with ``from`` and ``value``. Keys that are not
fields of `Turn` are kept in ``extra``: a chat template may read them. Images and other parts that
are not text are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from llmpipe.errors import did_you_mean
from llmpipe.formats.row import RowError, json_text, kind_of

ROLES = ("system", "user", "assistant", "tool")

NAMES: Mapping[str, str] = {
    **{role: role for role in ROLES},
    "developer": "system",
    **dict.fromkeys(("human", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "function"), "tool"),
}
"""The names of speakers that are known, and the role of each; their case does not matter."""

TRAINED_KEYS = ("weight", "train", "training", "trained")
"""Keys of a turn that say whether it is trained on: true or false, 1 or 0."""

Parts = list[dict[str, Any]]


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """A turn. ``content`` is None only where the assistant calls a tool and says nothing."""

    role: str
    content: str | Parts | None = None
    tool_calls: list[Any] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    reasoning_content: str | None = None
    trained: bool | None = None
    """Whether training counts this turn; None leaves it to the role."""
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    """All other keys, as written."""

    @property
    def text(self) -> str:
        """The text of the turn, its parts joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(_part_text(part) or "" for part in self.content or ())

    @property
    def is_plain(self) -> bool:
        """Whether the turn has nothing but a role and a text, so that it encodes as it is."""
        return (
            type(self.content) is str
            and self.trained is None
            and not self.extra
            and self.tool_calls is None
            and self.tool_call_id is None
            and self.name is None
            and self.reasoning_content is None
        )

    @property
    def is_blank(self) -> bool:
        """Whether the turn has neither text nor a tool call."""
        text = self.text
        return (not text or text.isspace()) and not self.tool_calls


class TurnRules(msgspec.Struct, frozen=True):
    """How turns are read.

    Attributes:
        names: speakers that get the name of a role.
        strict: whether other speakers are errors; otherwise they stay as written.
        trained: the keys that say whether a turn is trained on.
    """

    names: Mapping[str, str] = msgspec.field(default_factory=lambda: NAMES)
    strict: bool = True
    trained: tuple[str, ...] = TRAINED_KEYS


RULES = TurnRules()

_FIELDS = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content"})
_TEXT_FIELDS = ("tool_call_id", "name", "reasoning_content")


def read_turns(turns: Any, column: str, rules: TurnRules = RULES) -> list[Turn]:
    """Read a list of turns.

    Raises:
        RowError: the value is not a list of turns, or one of them cannot be read.
    """
    if not isinstance(turns, list) or not turns:
        raise RowError(f"column {column!r} must hold a list of turns, not {kind_of(turns)}")
    names = rules.names
    read: list[Turn] = []
    for turn in turns:
        # By far the most common turns are read here; `read_turn` reads all of them.
        if type(turn) is dict and len(turn) == 2:
            speaker = turn.get("from") or turn.get("role")
            text = turn.get("value") or turn.get("content")
            if type(text) is str and type(speaker) is str and speaker != "function_call":
                role = names.get(speaker)
                if role is not None:
                    read.append(Turn(role, text))
                    continue
        read.append(read_turn(turn, f"{column}[{len(read)}]", rules))
    return read


def read_turn(written: Any, place: str, rules: TurnRules = RULES) -> Turn:
    """Read one turn; ``place`` says which one in messages.

    Raises:
        RowError: it has no speaker, no text, or a key with an invalid value.
    """
    if not isinstance(written, Mapping):
        raise RowError(
            f"{place} must be an object with 'role' and 'content', not {kind_of(written)}"
        )
    speaker_key = "from" if "from" in written and "role" not in written else "role"
    text_key = "value" if "value" in written and "content" not in written else "content"
    speaker = written.get(speaker_key)
    if not isinstance(speaker, str) or not speaker.strip():
        raise RowError(
            f"{place} needs the text {speaker_key!r}, who speaks; it has {_keys(written)}"
        )
    role = _role(speaker, f"{place}: unknown {speaker_key} {speaker!r}", rules)
    fields = {name: written[name] for name in _TEXT_FIELDS if written.get(name) is not None}
    for name, value in fields.items():
        if not isinstance(value, str):
            raise RowError(f"{place}: {name!r} must hold text, not {kind_of(value)}")
    content, calls = written.get(text_key), _read_calls(written, place)
    if role == "assistant" and _known(speaker, rules) == "function_call" and calls is None:
        content, calls = None, _called(content, place)
    if content is None and not calls:
        if text_key not in written:
            expected = "value" if speaker_key == "from" else "content"
            raise RowError(f"{place} needs the text {expected!r}; it has {_keys(written)}")
        raise RowError(f"{place}: {text_key!r} must hold text, not null")
    if content is not None and not isinstance(content, str) and not _is_text_parts(content):
        raise _no_text(f"{place}: {text_key!r}", content)
    used = {*_FIELDS, speaker_key, text_key, *rules.trained}
    extra = {key: value for key, value in written.items() if key not in used}
    return Turn(
        role, content, calls, trained=_read_trained(written, place, rules), extra=extra, **fields
    )


def write_turn(turn: Turn, *, sharegpt: bool = False) -> dict[str, Any]:
    """Return a turn as an object: whether it is trained on as ``weight``, 1 or 0."""
    speaker, text = ("from", "value") if sharegpt else ("role", "content")
    role = SHAREGPT_NAMES.get(turn.role, turn.role) if sharegpt else turn.role
    written: dict[str, Any] = {speaker: role, text: turn.content}
    if turn.reasoning_content is not None:
        written["reasoning_content"] = turn.reasoning_content
    if turn.tool_calls:
        written["tool_calls"] = turn.tool_calls
    if turn.tool_call_id is not None:
        written["tool_call_id"] = turn.tool_call_id
    if turn.name is not None:
        written["name"] = turn.name
    if turn.trained is not None:
        written["weight"] = int(turn.trained)
    return {**written, **turn.extra} if turn.extra else written


SHAREGPT_NAMES = {"user": "human", "assistant": "gpt"}


def message_of(turn: Turn) -> dict[str, Any]:
    """Return a turn as chat templates take it: its parts joined, and nothing about training."""
    written = write_turn(turn)
    written.pop("weight", None)
    return {**written, "content": turn.text}


def keys_beside_text(turns: Iterable[Turn]) -> list[str]:
    """Return what turns hold beside role and text, by the keys that `write_turn` would write."""
    found: dict[str, None] = {}
    for turn in turns:
        found |= dict.fromkeys(write_turn(turn))
    return [key for key in found if key not in ("role", "content")]


def with_system(turns: list[Turn], system: str | None) -> list[Turn]:
    """Return the turns, opened by a system text that stood beside them.

    Raises:
        RowError: the turns open with another system text.
    """
    if system is None or not system.strip():
        return turns
    if turns and turns[0].role == "system":
        if turns[0].content != system:
            raise RowError(
                "the column 'system' and the first turn are two different system texts",
                reason="contradiction",
            )
        return turns
    return [Turn("system", system), *turns]


def require_question(turns: Sequence[Turn], name: str) -> None:
    """Require a user's turn and an answer at the end.

    Raises:
        RowError: there is no user turn.
    """
    if not any(turn.role == "user" for turn in turns):
        raise RowError(
            f"a text without a user turn cannot become a {name} row",
            hint="use `to: completion`, or name the user and assistant columns under `map`",
            reason="no question",
        )


def _role(speaker: str, problem: str, rules: TurnRules) -> str:
    role = rules.names.get(_known(speaker, rules))
    if role is not None:
        return role
    if not rules.strict:
        return speaker
    raise RowError(
        f"{problem} (known: {', '.join(sorted(rules.names))})",
        hint=did_you_mean(speaker, rules.names),
        reason="unknown speaker",
    )


def _known(speaker: str, rules: TurnRules) -> str:
    return speaker if speaker in rules.names else speaker.strip().lower()


def _read_calls(written: Mapping[str, Any], place: str) -> list[Any] | None:
    """Return tool calls: a list of objects whose arguments, where they are text, are JSON."""
    calls = written.get("tool_calls")
    if isinstance(calls, str) and calls.strip():
        calls = json_text(calls, f"{place}: 'tool_calls'")
    if not calls:
        return None
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise RowError(f"{place}: 'tool_calls' must hold a list of objects, not {kind_of(calls)}")
    for number, call in enumerate(calls):
        function = call.get("function")
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        if isinstance(arguments, str):
            json_text(arguments, f"{place}.tool_calls[{number}]: the text 'arguments'")
    return calls


def _called(text: Any, place: str) -> list[Any]:
    """Return the tool calls that ShareGPT writes as a turn of ``function_call``."""
    if not isinstance(text, str):
        raise RowError(f"{place}: a function_call must hold JSON text, not {kind_of(text)}")
    value = json_text(text, f"{place}: the function_call")
    calls = value if isinstance(value, list) else [value]
    if not calls or not all(
        isinstance(c, Mapping) and isinstance(c.get("name"), str) for c in calls
    ):
        raise RowError(f"{place}: a function_call must be an object with 'name' and 'arguments'")
    return [{"type": "function", "function": call} for call in calls]


def _read_trained(written: Mapping[str, Any], place: str, rules: TurnRules) -> bool | None:
    given = {key: written[key] for key in rules.trained if written.get(key) is not None}
    if not given:
        return None
    for key, value in given.items():
        if value not in (0, 1, "0", "1", "true", "false") or isinstance(value, (list, dict)):
            raise RowError(
                f"{place}: {key!r} must be 0 or 1, true or false, not {value!r}",
                hint="a turn is trained on, or it is not: there is nothing between",
                reason="weight between 0 and 1",
            )
    said = {value in (1, "1", "true") for value in given.values()}
    if len(said) > 1:
        raise RowError(
            f"{place}: {' and '.join(map(repr, given))} contradict each other",
            reason="contradiction",
        )
    return said.pop()


def _part_text(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return None
    texts = (part.get(key) for key in ("text", "content", "value"))
    return next((text for text in texts if isinstance(text, str)), None)


def _is_text_parts(content: Any) -> bool:
    """Return whether content is a list of parts that all hold text, as Axolotl joins them."""
    return (
        isinstance(content, list)
        and bool(content)
        and all(isinstance(part, Mapping) and _part_text(part) is not None for part in content)
    )


def _no_text(place: str, content: Any) -> RowError:
    types = sorted(
        {str(part.get("type")) for part in content if isinstance(part, Mapping) and "type" in part}
        if isinstance(content, list)
        else ()
    )
    parts = f" of {', '.join(types)}" if types else ""
    reason = "not text" if types else "wrong shape"
    return RowError(f"{place} must hold text, not {kind_of(content)}{parts}", reason=reason)


def _keys(turn: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, turn)) or "nothing"
