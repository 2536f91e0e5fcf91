"""Answer questions at a terminal, with everything loaded once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from llmpipe.errors import StageError
from llmpipe.retrieval.answer import Answer
from llmpipe.retrieval.prompt import Turn

PROMPT = "\n> "

Reply = Callable[[str, list[Turn]], Answer]
"""Shows the answer to a question, which may refer to the turns before it, and returns it."""


def converse(reply: Reply) -> None:
    """Ask for questions until the end of the input (Ctrl-D).

    Ctrl-C stops the answer that is being written; its question still counts as a turn. A question
    that failed does not: an endpoint that was busy may answer the next one.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() then knows the arrow keys)

    print("Ask a question. Ctrl-C stops an answer, Ctrl-D ends.")
    turns: list[Turn] = []
    while (question := _next_question()) is not None:
        try:
            answer = reply(question, turns)
        except StageError as error:
            print(f"\n{error.render()}")
        except KeyboardInterrupt:
            print("\n(stopped)")
            turns.append((question, "…"))
        else:
            turns.append((question, answer.text))


def _next_question() -> str | None:
    """Return the next line that is not blank, or None at the end."""
    while True:
        try:
            question = input(PROMPT).strip()
        except UnicodeDecodeError:
            print("that is not valid text in this terminal's encoding")
        except KeyboardInterrupt:
            print("\n(Ctrl-D ends)")
        except EOFError:
            print()
            return None
        else:
            if question:
                return question
