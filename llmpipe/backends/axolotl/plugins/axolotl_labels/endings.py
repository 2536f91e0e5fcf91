"""Find out which token ends an answer, by rendering a chat with the template that trains.

An answer ends with the last special token that the template writes between the answer and the
next turn. Prompt styles without a chat template (alpaca, completion) end with ``eos_token``.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_WORDS = ("quokka", "wombat", "bilby", "numbat")
"""What is said in the rendered chat: words that no template writes."""


@dataclass(frozen=True, slots=True)
class Ending:
    """What follows an answer in the texts that are trained on."""

    tokens: tuple[int, ...]
    """The token that ends the last answer, then others that the template writes in its place amid
    a chat, or after it. Empty where the template ends an answer in plain text."""
    text: str
    """What the template writes from the end of an answer to that token, the token included."""
    tail: tuple[int, ...] = ()
    """Tokens that the template writes after it, before the next turn (a line break, often)."""
    inner: bool = True
    """Whether an answer that another turn follows has an end at all."""
    opening: tuple[int, ...] = ()
    """The tokens that open an answer; empty where no special token does."""
    asked: tuple[int, ...] = ()
    """The tokens that open an answer at generation; empty where no special token does."""


def of_eos(tokenizer: Any) -> Ending:
    """Return the ending of rows to which Axolotl or TRL adds ``eos_token``."""
    eos = tokenizer.eos_token_id
    return Ending(() if eos is None else (eos,), tokenizer.eos_token or "")


def of_template(
    tokenizer: Any, template: str, options: Mapping[str, Any], stops: Collection[int]
) -> Ending:
    """Return the ending of chats that ``template`` renders.

    Args:
        tokenizer: The tokenizer that trains.
        template: The Jinja text of the chat template.
        options: Further variables of the template (Axolotl's ``chat_template_kwargs``).
        stops: The tokens that end generation.

    Raises:
        ValueError: the template does not write every turn of a plain chat once.
    """
    parts = _parts(tokenizer, template, options)
    before, between, last = (_ids(tokenizer, text) for text in parts)
    special = special_ids(tokenizer)
    first_between = _first(between, special)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(between, last, strict=False))
    common = [token for token, _ in same]
    for ids, inner in ((common, True), (last, False)):
        at = _last(ids, stops)
        at = _last(ids, special) if at is None else at
        if at is None:
            continue
        tokens = [ids[at]]
        if not inner and first_between is not None:
            # It ends an answer if it ends a question or generation; else it opens a question.
            inner = first_between in stops or first_between == _first(before, special)
            tokens += [first_between] * inner
        tokens += (token for token in last if token in stops)
        return Ending(
            tuple(dict.fromkeys(tokens)),
            tokenizer.decode(ids[: at + 1]),
            tail=tuple(ids[at + 1 :]) if ids is common else (),
            inner=inner,
            opening=_opening(before, special, tokens),
            asked=_opening(_ids(tokenizer, _asked(tokenizer, template, options)), special, tokens),
        )
    if first_between is not None and first_between in stops:  # the last answer has none
        return Ending((first_between,), tokenizer.decode([first_between]))
    return Ending((), parts.last)


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Return the tokens that are control tokens rather than text: turn markers, EOS, padding."""
    added: dict[int, Any] = tokenizer.added_tokens_decoder
    marks = {i for i, token in added.items() if token.special or token.content.strip()}
    return frozenset(marks | set(tokenizer.all_special_ids))


def unlike_prompt(tokenizer: Any, template: str, options: Mapping[str, Any]) -> str | None:
    """Return a sentence if a template's prompt for generation does not begin its chats, or None.

    Raises:
        ValueError: the template does not write a plain chat.
    """
    question, answer = _WORDS[:2]
    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    chats = _after(_rendered(tokenizer, chat, template, options), question).partition(answer)[0]
    prompt, bare = (
        _after(_rendered(tokenizer, chat[:1], template, options, ask=ask), question)
        for ask in (True, False)
    )
    if not chats.startswith(prompt.rstrip()):
        return (
            f"the chat template writes {chats!r} between a question and its answer, and {prompt!r} "
            "at generation: the model is served with another prompt than it was trained with"
        )
    if prompt == bare and (missing := chats.removeprefix(prompt)).strip():
        return (
            "the chat template has no prompt for generation: the model would have to write "
            f"{missing!r} before its answer, which is not trained"
        )
    return None


class _Parts(NamedTuple):
    """A rendered chat of two questions and two answers, without what is said in it."""

    before: str
    """Between the first question and its answer."""
    between: str
    """Between the first answer and the next question."""
    last: str
    """After the last answer."""


def _parts(tokenizer: Any, template: str, options: Mapping[str, Any]) -> _Parts:
    question, answer, follow_up, final = _WORDS
    chat = [
        {"role": role, "content": word}
        for role, word in zip(("user", "assistant") * 2, _WORDS, strict=True)
    ]
    try:
        text = _rendered(tokenizer, chat, template, options)
    except ValueError:  # a template of single questions; whatever else is wrong comes up again
        text = _rendered(tokenizer, chat[:2], template, options)
        after = _after(text, answer)
        return _Parts(_after(text, question).partition(answer)[0], after, after)
    if any(text.count(word) != 1 for word in _WORDS):
        raise ValueError("the chat template does not write every turn of a chat once")
    return _Parts(
        _after(text, question).partition(answer)[0],
        _after(text, answer).partition(follow_up)[0],
        _after(text, final),
    )


def _asked(tokenizer: Any, template: str, options: Mapping[str, Any]) -> str:
    """Return what the template writes after a question that is to be answered."""
    question = _WORDS[0]
    chat = [{"role": "user", "content": question}]
    try:
        return _after(_rendered(tokenizer, chat, template, options, ask=True), question)
    except ValueError:
        return ""


def _rendered(
    tokenizer: Any,
    chat: list[dict[str, str]],
    template: str,
    options: Mapping[str, Any],
    *,
    ask: bool = False,
) -> str:
    variables = {**options, "chat_template": template, "add_generation_prompt": ask}
    try:
        text: str = tokenizer.apply_chat_template(chat, tokenize=False, **variables)
    except Exception as error:  # a template raises whatever it likes
        raise ValueError(f"the chat template does not write a plain chat: {error}") from error
    return text


def _after(text: str, word: str) -> str:
    if word not in text:
        raise ValueError("the chat template leaves out what is said")
    return text.partition(word)[2]


def _opening(
    before: Sequence[int], special: Collection[int], ends: Collection[int]
) -> tuple[int, ...]:
    """Return what opens an answer: from the first special token that does not end the question."""
    at = next((i for i, token in enumerate(before) if token in special and token not in ends), None)
    return () if at is None else tuple(before[at:])


def _first(ids: Sequence[int], wanted: Collection[int]) -> int | None:
    return next((token for token in ids if token in wanted), None)


def _last(ids: Sequence[int], wanted: Collection[int]) -> int | None:
    return max((i for i, token in enumerate(ids) if token in wanted), default=None)


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return ids
