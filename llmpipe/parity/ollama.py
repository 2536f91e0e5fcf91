"""Find the Go template for Ollama that equals a model's own chat template, and prove it.

The reference renders with the model's own template: llama.cpp, whose rendering the export's parity
gate has proven to be that of training. The texts around messages are read off a few probes. Then
every golden chat must be rendered alike, character by character.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llmpipe.backends.ollama import QUOTES, Chat, ChatFormat
from llmpipe.errors import StageError
from llmpipe.parity.gate import first_difference
from llmpipe.parity.golden import GoldenChat, golden_chats

Render = Callable[[Chat, bool], str | None]
"""Return a chat as the model's own template renders it, with or without the opening of an answer;
None if the template refuses the chat."""

WRITE_IT = (
    "serve the GGUF with llama.cpp (`llmpipe serve`), which runs the template itself, or write the "
    "Modelfile's TEMPLATE by hand"
)
_WORDS = {"system": "Qsystemq", "user": "Quserq", "assistant": "Qanswerq"}
"""Contents of the probes, which no template contains."""
_REASONING = GoldenChat(
    "reasoning in an earlier answer",
    (
        {"role": "user", "content": "Is it far?"},
        {"role": "assistant", "content": "<think>\n12 km.\n</think>\n\nNo."},
        {"role": "user", "content": "Why?"},
    ),
)


@dataclass(frozen=True, slots=True)
class Proven:
    """A chat format whose renderings are those of the model's template.

    Attributes:
        format: The format.
        chats: How many golden chats were rendered alike.
        refused: Golden chats that the model's template refuses.
        trimmed: Golden chats that are alike only without spaces around their messages.
    """

    format: ChatFormat
    chats: int
    refused: tuple[str, ...]
    trimmed: tuple[str, ...]


def prove_format(render: Render, label: str, special: Sequence[str] = ()) -> Proven:
    """Return the format that equals the chat template by which ``render`` renders.

    Args:
        render: The reference.
        label: The model's name in messages.
        special: Special tokens that users might type.

    Raises:
        StageError: The template is not of the family, or renders a golden chat differently.
    """
    chats = [*golden_chats(special), _REASONING]
    found = _derive(render, label)
    alike, refused, trimmed = 0, [], []
    for chat in chats:
        expected = render(chat.messages, True)
        if expected is None:
            refused.append(chat.name)
            continue
        actual = _render(found, chat.messages)
        if actual == expected:
            alike += 1
        elif expected == _render(found, _stripped(chat.messages)):
            trimmed.append(chat.name)
        else:
            raise _unlike(label, chat.name, expected, actual)
    return Proven(found, alike, tuple(refused), tuple(trimmed))


def _render(chat_format: ChatFormat, messages: Chat) -> str:
    try:
        return chat_format.render(messages)
    except KeyError as error:
        return f"(an error: the role {error})"


def _stripped(messages: Chat) -> list[dict[str, str]]:
    return [{**message, "content": message["content"].strip()} for message in messages]


def _derive(render: Render, label: str) -> ChatFormat:
    """Read the texts around messages off renderings of probes."""
    user, answer = (_probe(role) for role in ("user", "assistant"))
    opened = _split(_rendered(render, [user], label), user)
    closed = _split(_rendered(render, [user], label, answer_next=False), user)
    long = _split(_rendered(render, [user, answer, user], label), user, answer, user)
    if not (opened and closed and long):
        raise _not_of_the_family(label, "a message is changed or repeated")
    after_user = closed[1]
    if not (opened[1].startswith(after_user) and long[1].startswith(after_user)):
        raise _not_of_the_family(label, "what follows a question depends on the next message")
    opening, before_answer = (text.removeprefix(after_user) for text in (opened[1], long[1]))
    after_answer = _end_of_answer(long[2], after_user, opened[0])
    before_user = long[2].removeprefix(after_answer)
    if not opened[0].endswith(before_user):
        raise _not_of_the_family(label, "the first question is written unlike the second")
    begin = opened[0].removesuffix(before_user)
    turns = {"user": (before_user, after_user), "assistant": (before_answer, after_answer)}
    if system := _system(render, before_user, label):
        turns = {"system": system, **turns}
    found = ChatFormat(begin, turns, opening)
    if any("{{" in text or QUOTES in text for text in found.literals()):
        raise _not_of_the_family(label, "it writes braces or quotes that have a meaning in Ollama")
    return found


def _end_of_answer(between: str, after_user: str, first: str) -> str:
    """Return what ends an answer, of the text between it and the next question.

    llama.cpp continues an answer at the end of a chat, so no probe shows its end alone. Most
    templates end all messages alike; in others, the rest begins as the ``first`` question does.
    """
    if after_user and between.startswith(after_user):
        return after_user
    alike = first_difference(between[::-1], first[::-1])
    return between[: len(between) - alike] if alike is not None else ""


def _system(render: Render, before_user: str, label: str) -> tuple[str, str] | None:
    """Return the texts around a system message, or None if the template refuses one."""
    system, user = _probe("system"), _probe("user")
    text = render([system, user], True)
    if text is None:
        return None
    parts = _split(text, system, user)
    if not parts or not parts[1].endswith(before_user):
        raise _not_of_the_family(label, "a system message does not stand by itself")
    return parts[0], parts[1].removesuffix(before_user)


def _probe(role: str) -> dict[str, str]:
    return {"role": role, "content": _WORDS[role]}


def _rendered(render: Render, chat: Chat, label: str, *, answer_next: bool = True) -> str:
    text = render(chat, answer_next)
    if text is None:
        raise _not_of_the_family(label, "it refuses a plain chat")
    return text


def _split(text: str, *messages: Mapping[str, str]) -> list[str] | None:
    """Return the texts before, between and after the messages' contents; None if they differ."""
    found = []
    for message in messages:
        before, content, text = text.partition(message["content"])
        if not content:
            return None
        found.append(before)
    found.append(text)
    return None if any(word in part for word in _WORDS.values() for part in found) else found


def _not_of_the_family(label: str, why: str) -> StageError:
    return StageError(
        f"{label}: no Ollama template is proven equal to its chat template: {why}", hint=WRITE_IT
    )


def _unlike(label: str, name: str, expected: str, actual: str) -> StageError:
    at = first_difference(expected, actual) or 0
    return _not_of_the_family(
        label,
        f"the chat {name!r} differs from character {at} on:\n"
        f"llama.cpp      {expected[at : at + 40]!r}\n"
        f"Ollama         {actual[at : at + 40]!r}",
    )
