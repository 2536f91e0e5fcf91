"""Ask the user at a terminal until the answer is usable."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from llmpipe.errors import LlmpipeError, UsageError, did_you_mean
from llmpipe.terminal import guarded

T = TypeVar("T")


def at_terminal() -> bool:
    """Return whether input and output are both a terminal."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))


def ask(question: str, default: str | None, read: Callable[[str], T]) -> T:
    """Return what ``read`` makes of an answer; an empty answer means the default, if there is one.

    If ``read`` refuses an answer, the reason is printed and the question is asked again.

    Raises:
        KeyboardInterrupt: The user quits by Ctrl-C or the end of the input.
    """
    prompt = f"{question} [{default}]: " if default else f"{question}: "
    while True:
        try:
            answer = input(guarded(prompt)).strip() or default
            if answer:
                return read(answer)
            print("   an answer is needed; Ctrl-C ends without writing anything")
        except UnicodeDecodeError:
            print("   that is not valid text in this terminal's encoding")
        except LlmpipeError as error:
            print("\n".join(f"   {line.strip()}" for line in error.render().splitlines()))
        except (EOFError, KeyboardInterrupt):
            print()
            raise KeyboardInterrupt from None


def choose(
    question: str, choices: Mapping[str, str], default: str, check: Callable[[str], object]
) -> str:
    """Let the user choose one of several words, by its number or by itself.

    A word that ``check`` refuses cannot be chosen; the reason is shown.
    """
    print(question)
    width = max(map(len, choices))
    for number, (word, meaning) in enumerate(choices.items(), 1):
        print(f"  {number}  {word:<{width}}  {meaning}")

    def read(answer: str) -> str:
        numbered = dict(zip(map(str, range(1, len(choices) + 1)), choices, strict=True))
        word = numbered.get(answer, answer.lower())
        if word not in choices:
            hint = did_you_mean(word, choices)
            raise UsageError(f"{answer!r} is not one of {', '.join(choices)}", hint=hint)
        check(word)
        return word

    return ask("Which", default, read)
